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
