//! What every operation asks of its caller, read from the description of the API: the one place where it is declared is
//! the attribute of the handler, and what the description promises is what the hub does.

use std::collections::HashMap;

use axum::http::Method;
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};

use crate::access::Role;

/// An API token in the header `Authorization: Bearer …`; its scope is the role it needs.
pub const TOKEN: &str = "token";
/// The cookie of a browser's session, which began with a token.
pub const SESSION: &str = "session";
/// A device's certificate in the TLS handshake; scope `renew`: also one that has expired within the grace.
pub const DEVICE: &str = "device";

/// Which devices an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// None.
    None,
    /// Those whose certificate is valid.
    Valid,
    /// Also those whose certificate has expired within the grace.
    Expired,
}

/// What an operation asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it is for everybody, and looks itself at what it is given.
    Nothing,
    /// A person or service with at least this role, or one of those devices.
    Caller {
        /// The role; none: no person or service.
        role: Option<Role>,
        /// The devices.
        devices: Devices,
    },
}

/// Why the declarations cannot be enforced. A hub that does not know who may do what does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{method} {path} {problem}")]
pub struct RulesError {
    method: Method,
    path: String,
    problem: String,
}

/// What each operation asks, by method and path as the router matches it.
#[derive(Debug, Clone)]
pub struct Rules(HashMap<(Method, String), Need>);

impl Rules {
    /// Reads them from the description of the API.
    pub fn read(api: &OpenApi) -> Result<Self, RulesError> {
        let mut rules = HashMap::new();
        for (path, item) in &api.paths.paths {
            let of_methods = [
                (Method::GET, &item.get),
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::DELETE, &item.delete),
                (Method::PATCH, &item.patch),
                (Method::OPTIONS, &item.options),
                (Method::HEAD, &item.head),
                (Method::TRACE, &item.trace),
            ];
            for (method, operation) in of_methods {
                let Some(operation) = operation else { continue };
                let need = need(operation).map_err(|problem| RulesError {
                    method: method.clone(),
                    path: path.clone(),
                    problem,
                })?;
                rules.insert((method, path.clone()), need);
            }
        }
        Ok(Self(rules))
    }

    /// What the operation asks; `None` for what is not there.
    pub fn need(&self, method: &Method, path: Option<&str>) -> Option<Need> {
        // The router answers HEAD wherever there is a GET.
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.0.get(&(method.clone(), path?.to_owned())).copied()
    }

    /// All operations.
    pub fn all(&self) -> impl Iterator<Item = (&Method, &str, Need)> {
        self.0.iter().map(|((method, path), need)| (method, path.as_str(), *need))
    }
}

/// The schemes that a requirement names, with their scopes. The library has no getter for them.
fn schemes(requirement: &SecurityRequirement) -> Vec<(String, Vec<String>)> {
    let value = serde_json::to_value(requirement).unwrap_or_default();
    let named = value.as_object().into_iter().flatten();
    let scopes = |scopes: &serde_json::Value| -> Vec<String> {
        scopes.as_array().into_iter().flatten().filter_map(|scope| scope.as_str().map(str::to_owned)).collect()
    };
    named.map(|(scheme, given)| (scheme.clone(), scopes(given))).collect()
}

fn need(operation: &Operation) -> Result<Need, String> {
    let requirements = operation.security.as_deref().unwrap_or_default();
    if requirements.is_empty() {
        return Err("declares no role: its attribute needs security(…)".to_owned());
    }
    let (mut role, mut devices) = (None, Devices::None);
    for requirement in requirements {
        let schemes = schemes(requirement);
        let [(scheme, scopes)] = schemes.as_slice() else {
            return match (schemes.len(), requirements.len()) {
                (0, 1) => Ok(Need::Nothing),
                (0, _) => Err("is for everybody and yet asks for more".to_owned()),
                _ => Err("asks for several things at once, which is not enforced".to_owned()),
            };
        };
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        match (scheme.as_str(), scopes.as_slice()) {
            (TOKEN | SESSION, [name]) => {
                let named = Role::from_name(name).ok_or_else(|| format!("asks for the unknown role {name:?}"))?;
                if role.replace(named).is_some_and(|other| other != named) {
                    return Err("asks for two roles; name the lesser".to_owned());
                }
            }
            (DEVICE, []) => devices = Devices::Valid,
            (DEVICE, ["renew"]) => devices = Devices::Expired,
            _ => return Err(format!("asks for {scheme:?} with {scopes:?}, which is not enforced")),
        }
    }
    Ok(Need::Caller { role, devices })
}

/// Names the schemes, and lets a session do what a token may: a session is a token that a browser has shown before.
pub(super) fn describe(api: &mut OpenApi) {
    let components = api.components.get_or_insert_default();
    let token = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API token: `tributary-api.ID.SECRET`. The scope is the role that it needs at least."))
        .build();
    components.add_security_scheme(TOKEN, SecurityScheme::Http(token));
    let cookie = ApiKeyValue::with_description(
        crate::access::sessions::COOKIE,
        "A browser's session. What changes something also needs the header `x-csrf-token`.",
    );
    components.add_security_scheme(SESSION, SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    let description = Some("A device's certificate in the TLS handshake.".to_owned());
    components
        .add_security_scheme(DEVICE, SecurityScheme::MutualTls { description, deprecated: None, extensions: None });
    for item in api.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
            &mut item.options,
            &mut item.head,
            &mut item.trace,
        ];
        for requirements in operations.into_iter().flatten().filter_map(|operation| operation.security.as_mut()) {
            let tokens: Vec<Vec<String>> = requirements
                .iter()
                .flat_map(schemes)
                .filter_map(|(scheme, scopes)| (scheme == TOKEN).then_some(scopes))
                .collect();
            requirements.extend(tokens.into_iter().map(|scopes| SecurityRequirement::new(SESSION, scopes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(security: &str) -> Result<Need, String> {
        let mut operation = Operation::default();
        operation.security = serde_json::from_str(security).unwrap();
        need(&operation)
    }

    #[test]
    fn needs_are_read_from_the_description_and_what_is_not_enforced_is_refused() {
        let caller = |role, devices| Ok(Need::Caller { role, devices });
        assert_eq!(of("[{}]"), Ok(Need::Nothing));
        assert_eq!(of(r#"[{"token": ["operator"]}]"#), caller(Some(Role::Operator), Devices::None));
        assert_eq!(of(r#"[{"device": []}, {"token": ["viewer"]}]"#), caller(Some(Role::Viewer), Devices::Valid));
        assert_eq!(of(r#"[{"device": ["renew"]}]"#), caller(None, Devices::Expired));
        for (security, words) in [
            ("[]", "declares no role"),
            ("null", "declares no role"),
            (r#"[{}, {"token": ["viewer"]}]"#, "for everybody"),
            (r#"[{"token": []}]"#, "not enforced"),
            (r#"[{"token": ["root"]}]"#, "unknown role \"root\""),
            (r#"[{"basic": []}]"#, "not enforced"),
            (r#"[{"token": ["viewer"], "device": []}]"#, "at once"),
            (r#"[{"token": ["viewer"]}, {"token": ["admin"]}]"#, "two roles"),
        ] {
            assert!(of(security).unwrap_err().contains(words), "{security}: {:?}", of(security));
        }
    }

    #[test]
    fn every_operation_of_the_api_declares_what_it_asks() {
        let rules = Rules::read(&super::super::openapi()).unwrap();
        assert!(rules.all().count() >= 50);
        let needs = |method, path: &str| rules.need(&method, Some(&format!("/api/v1{path}")));
        assert_eq!(needs(Method::GET, "/health"), Some(Need::Nothing));
        assert_eq!(needs(Method::HEAD, "/devices"), needs(Method::GET, "/devices"));
        let operator = Need::Caller { role: Some(Role::Operator), devices: Devices::None };
        assert_eq!(needs(Method::PUT, "/devices/{device}"), Some(operator));
        assert_eq!(needs(Method::DELETE, "/devices"), None);
        let for_everybody = rules.all().filter(|(_, _, need)| *need == Need::Nothing).map(|(_, path, _)| path);
        let mut for_everybody: Vec<&str> = for_everybody.collect();
        for_everybody.sort_unstable();
        // Adding to this list is a decision, not an oversight.
        let expected = ["/api/v1/enrolments", "/api/v1/health", "/api/v1/ready", "/api/v1/session"];
        assert_eq!(for_everybody, expected);
    }
}
