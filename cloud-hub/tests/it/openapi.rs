//! The committed description of the web API is the one that the program gives.

#[test]
fn the_committed_description_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == cloud_hub::api::openapi_text(),
        "cloud-hub/openapi.json has drifted; regenerate it with: cargo run -p cloud-hub -- config openapi > cloud-hub/openapi.json"
    );
}

#[test]
fn the_description_is_complete() {
    let text = cloud_hub::api::openapi_text();
    let api: serde_json::Value = serde_json::from_str(&text).unwrap();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(api["components"]["schemas"][name].is_object(), "{name} is used but not described");
    }
    let mut names = std::collections::BTreeSet::new();
    let fields = |value: &serde_json::Value| value.as_object().cloned().unwrap_or_default();
    let mut answers = 0;
    for (path, operations) in fields(&api["paths"]) {
        for (method, operation) in fields(&operations) {
            assert!(
                names.insert(operation["operationId"].to_string()),
                "two operations have one name: {method} {path}"
            );
            for (status, answer) in fields(&operation["responses"]) {
                answers += 1;
                assert!(answer["description"].is_string(), "{method} {path} {status}");
                assert!(status != "default" || answer["content"]["application/problem+json"].is_object());
            }
        }
    }
    assert!(answers > 50, "{answers}");
}
