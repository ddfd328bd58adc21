//! Hosts.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::access::Caller;
use super::extract::{Body, Id, Page, PageParams, Params};
use super::policies::HostPolicyView;
use super::problem::Problem;
use crate::app::AppError;
use crate::store::hosts::Host;
use crate::store::policies::HostPolicy;

/// A host.
#[derive(Serialize, ToSchema)]
pub(super) struct HostView {
    id: Uuid,
    /// As the host says.
    name: String,
    /// Its token's.
    group: String,
    /// What the host says of itself.
    #[schema(value_type = Object)]
    facts: Value,
    /// new, green or red.
    health: String,
    /// Why it is red: a list of name and evidence.
    #[schema(value_type = Vec<Object>)]
    reasons: Value,
    /// Since when its health stands so.
    health_ms: i64,
    /// It has a stream.
    connected: bool,
    /// Its last sign of life.
    seen_ms: i64,
    enrolled_ms: i64,
    revoked_ms: Option<i64>,
    /// Of its last connection: each counts it up, so that a copy shows.
    generation: i64,
    /// When a copy of it last showed.
    cloned_ms: Option<i64>,
    /// What it sent and was no event.
    events_refused: i64,
    /// The agent's version, as of its last heartbeat, like the rest of these.
    version: Option<String>,
    /// Cut off from the network.
    isolated: Option<bool>,
    /// When its protection was last seen to work as a whole.
    proven_ms: Option<i64>,
    /// When its rules were loaded, and which they are.
    bundle_ms: Option<i64>,
    bundle: Option<String>,
    /// Files in quarantine.
    quarantined: Option<i64>,
    /// How it stands to its policy; nothing where it never had one.
    policy: Option<HostPolicyView>,
    /// Its last heartbeat; with one host only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    heartbeat: Option<Value>,
}

/// What of a heartbeat stands in a list.
#[derive(Deserialize)]
struct Told {
    status: ToldStatus,
}

#[derive(Deserialize)]
struct ToldStatus {
    version: String,
    #[serde(default)]
    isolated: bool,
    #[serde(default)]
    proof: ToldProof,
    bundle: ToldBundle,
    quarantine: ToldQuarantine,
}

#[derive(Default, Deserialize)]
struct ToldProof {
    last_proven_ms: Option<i64>,
}

#[derive(Deserialize)]
struct ToldBundle {
    digest: String,
    loaded_ms: i64,
}

#[derive(Deserialize)]
struct ToldQuarantine {
    items: i64,
}

impl HostView {
    fn of(host: Host, policy: Option<HostPolicyView>, whole: bool) -> Self {
        let json = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        let told = host.heartbeat.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let told = told.map(|Told { status }| status);
        Self {
            isolated: told.as_ref().map(|status| status.isolated),
            proven_ms: told.as_ref().and_then(|status| status.proof.last_proven_ms),
            bundle_ms: told.as_ref().map(|status| status.bundle.loaded_ms),
            bundle: told.as_ref().map(|status| status.bundle.digest.clone()),
            quarantined: told.as_ref().map(|status| status.quarantine.items),
            version: told.map(|status| status.version),
            id: host.id,
            name: host.name,
            group: host.group,
            facts: json(&host.facts),
            health: host.health,
            reasons: json(&host.reasons),
            health_ms: host.health_ms,
            connected: host.session.is_some(),
            seen_ms: host.seen_ms,
            enrolled_ms: host.enrolled_ms,
            revoked_ms: host.revoked_ms,
            generation: host.generation,
            cloned_ms: host.cloned_ms,
            events_refused: host.events_refused,
            policy,
            heartbeat: host.heartbeat.filter(|_| whole).map(|text| json(&text)),
        }
    }
}

/// Which hosts.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct HostParams {
    /// new, green or red.
    health: Option<String>,
    /// What name or group holds.
    text: String,
}

/// Why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeBody {
    /// For the audit log.
    reason: String,
}

/// Hosts in the order of their enrollment.
#[utoipa::path(get, path = "/api/v1/hosts", tag = "hosts", params(HostParams, PageParams),
    responses((status = 200, body = Page<HostView>), (status = 400, body = Problem)))]
pub(super) async fn host_list(
    State(api): State<Arc<Api>>,
    Params(params): Params<HostParams>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<HostView>>, Problem> {
    let health = params.health.as_deref();
    if health.is_some_and(|health| !["new", "green", "red"].contains(&health)) {
        return Err(AppError::Invalid("health: new, green or red".to_owned()).into());
    }
    let limit = page.limit()?;
    let hosts = api.app.host_list(page.cursor()?, health, &params.text, limit + 1).await?;
    let range = hosts.first().zip(hosts.last()).map(|(one, other)| (one.number, other.number));
    let mut policies = policies(&api, range).await?;
    let show = |host: Host| {
        let policy = policies.remove(&host.number);
        HostView::of(host, policy, false)
    };
    Ok(Json(Page::of(hosts, limit, |host| host.number, show)))
}

/// How the hosts of a range of numbers stand to their policies.
async fn policies(
    api: &Api,
    range: Option<(i64, i64)>,
) -> Result<HashMap<i64, HostPolicyView>, Problem> {
    let Some((first, last)) = range else { return Ok(HashMap::new()) };
    let states = api.app.policy_states(first, last).await?;
    let show = |(state, name): (HostPolicy, Option<String>)| {
        (state.number, HostPolicyView::of(state, name))
    };
    Ok(states.into_iter().map(show).collect())
}

/// A host with its last heartbeat.
#[utoipa::path(get, path = "/api/v1/hosts/{id}", tag = "hosts", params(("id" = Uuid, Path)),
    responses((status = 200, body = HostView), (status = 404, body = Problem)))]
pub(super) async fn host_get(
    State(api): State<Arc<Api>>,
    Id(id): Id<Uuid>,
) -> Result<Json<HostView>, Problem> {
    let host = api.app.host_get(id).await?;
    let policy = policies(&api, Some((host.number, host.number))).await?.remove(&host.number);
    Ok(Json(HostView::of(host, policy, true)))
}

/// Take a host and its certificates back.
#[utoipa::path(post, path = "/api/v1/hosts/{id}/revoke", tag = "hosts",
    params(("id" = Uuid, Path)), request_body = RevokeBody,
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn host_revoke(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    Body(body): Body<RevokeBody>,
) -> Result<StatusCode, Problem> {
    api.app.host_revoke(id, &who.actor, &body.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}
