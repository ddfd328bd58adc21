//! What a provider says of a person: everything it sent, of which two claims are read.

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreRevocableToken,
    CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, Client, EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet,
    IdTokenFields, StandardErrorResponse, StandardTokenResponse, SubjectIdentifier,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Values of a claim that are looked at, and bytes of each.
const VALUES: usize = 1000;
const VALUE: usize = 256;

/// Claims that no standard names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    #[serde(flatten)]
    all: Map<String, Value>,
}

impl AdditionalClaims for Claims {}

/// A client that keeps all claims, of a provider that described itself.
pub(super) type ClaimClient = Client<
    Claims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<
        IdTokenFields<
            Claims,
            EmptyExtraTokenFields,
            CoreGenderClaim,
            CoreJweContentEncryptionAlgorithm,
            CoreJwsSigningAlgorithm,
        >,
        CoreTokenType,
    >,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// A person, as a provider knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Never changes, and is nobody else's at this provider.
    pub subject: String,
    /// The name that it gives.
    pub name: String,
    /// Values of the claim that gives a role.
    pub groups: Vec<String>,
}

impl Identity {
    pub(super) fn of(
        subject: &SubjectIdentifier,
        claims: &Value,
        name_claim: &str,
        role_claim: &str,
    ) -> Self {
        let name = claims.get(name_claim).and_then(Value::as_str).unwrap_or_default();
        let groups = match claims.get(role_claim) {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(many)) => {
                many.iter().take(VALUES).filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let groups = groups.into_iter().filter(|group| group.len() <= VALUE).collect();
        Self { subject: subject.to_string(), name: name.to_owned(), groups }
    }
}

/// Adds what is told elsewhere; what is signed stands.
pub(super) fn merge(signed: &mut Value, told: Value) {
    let (Value::Object(signed), Value::Object(told)) = (signed, told) else { return };
    for (name, value) in told {
        signed.entry(name).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_signed_stands_and_only_short_text_is_a_group() {
        let mut claims = json!({ "sub": "7", "groups": ["soc", 5, { "x": 1 }] });
        merge(&mut claims, json!({ "groups": ["admins"], "preferred_username": "ann" }));
        let subject = SubjectIdentifier::new("7".to_owned());
        let identity = Identity::of(&subject, &claims, "preferred_username", "groups");
        let (subject, name) = ("7".to_owned(), "ann".to_owned());
        assert_eq!(identity, Identity { subject, name, groups: vec!["soc".to_owned()] });
        let long = json!({ "groups": ["x".repeat(257)], "name": ["not", "text"] });
        let subject = SubjectIdentifier::new("7".to_owned());
        let identity = Identity::of(&subject, &long, "name", "groups");
        assert!(identity.name.is_empty() && identity.groups.is_empty());
    }
}
