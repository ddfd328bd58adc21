//! What is denied on all hosts, or on those of a group.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use holdfast_common::denial::DenialKind;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::access::Caller;
use super::extract::{Body, Id, Page, PageParams, Params};
use super::problem::Problem;
use crate::app::NewDenial;
use crate::store::denials::{Denial, DenialHost, Reach};

/// Content by its hash, or what lies at a path.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DenialSort {
    /// By its SHA-256: denied and quarantined.
    Hash,
    /// Whatever its content: denied, and left where it is.
    Path,
}

/// A denial.
#[derive(Serialize, ToSchema)]
pub(super) struct DenialView {
    id: Uuid,
    /// hash or path.
    kind: String,
    value: String,
    /// Whose hosts; nothing for all.
    group: Option<String>,
    by: String,
    reason: String,
    since_ms: i64,
    /// When it ends by itself.
    until_ms: Option<i64>,
    /// When it was taken back, by whom and why.
    removed_ms: Option<i64>,
    removed_by: String,
    removed_why: String,
    /// Hosts that it is for, those that are away too.
    hosts: i64,
    /// Those that have it in force; once it was taken back, those that have let go of it.
    applied: i64,
    /// Those that say they cannot, and why with each host.
    refused: i64,
}

/// How a host stands to a denial.
#[derive(Serialize, ToSchema)]
pub(super) struct DenialHostView {
    id: Uuid,
    name: String,
    connected: bool,
    /// applied, waiting or refused.
    state: &'static str,
    /// Why it is not in force there.
    why: Option<String>,
}

/// What is to be denied.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DenialBody {
    kind: DenialSort,
    /// SHA-256 in hex; or an absolute path: `*` stays in one folder, `**` does not.
    value: String,
    /// Hosts of this group alone; all without it.
    #[serde(default)]
    group: Option<String>,
    /// For the hosts and the audit log.
    reason: String,
    /// Until it ends by itself, seconds; without it not.
    #[serde(default)]
    duration_s: Option<u64>,
}

/// Which denials.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct DenialParams {
    /// Those that were taken back in the last year, in place of those that stand.
    removed: bool,
}

/// Why it is taken back.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct RemoveParams {
    /// For the audit log.
    #[param(required = true)]
    reason: String,
}

impl DenialView {
    fn of(one: Denial, reach: Reach) -> Self {
        Self {
            id: one.id,
            kind: one.kind,
            value: one.value,
            group: one.group,
            by: one.filed_by,
            reason: one.reason,
            since_ms: one.filed_ms,
            until_ms: one.until_ms,
            removed_ms: one.removed_ms,
            removed_by: one.removed_by,
            removed_why: one.removed_why,
            hosts: reach.hosts,
            applied: reach.applied,
            refused: reach.refused,
        }
    }
}

impl DenialHostView {
    fn of(host: DenialHost, denial: &Denial) -> Self {
        let refused: Vec<serde_json::Value> =
            serde_json::from_str(&host.refused).unwrap_or_default();
        let id = denial.id.to_string();
        let mine = refused.iter().find(|one| one["id"] == id.as_str());
        let why = mine.map(|one| one["why"].as_str().unwrap_or_default().to_owned());
        let state = match (host.through >= denial.change(), &why) {
            (false, _) => "waiting",
            (true, Some(_)) => "refused",
            (true, None) => "applied",
        };
        let why = why.filter(|_| state == "refused");
        Self { id: host.id, name: host.name, connected: host.connected, state, why }
    }
}

/// What is denied on many hosts at once, newest first.
#[utoipa::path(get, path = "/api/v1/denials", tag = "denials",
    params(DenialParams, PageParams),
    responses((status = 200, body = Page<DenialView>), (status = 400, body = Problem)))]
pub(super) async fn denial_list(
    State(api): State<Arc<Api>>,
    Params(params): Params<DenialParams>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<DenialView>>, Problem> {
    let limit = page.limit()?;
    let list = api.app.denial_list(params.removed, page.cursor()?, limit + 1).await?;
    let show = |(one, reach)| DenialView::of(one, reach);
    Ok(Json(Page::of(list, limit, |(one, _)| one.number, show)))
}

/// Deny something on all hosts, or on those of a group, also on those that come later.
#[utoipa::path(post, path = "/api/v1/denials", tag = "denials", request_body = DenialBody,
    responses((status = 201, body = DenialView),
        (status = 200, body = DenialView, description = "It is denied so already"),
        (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn denial_add(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Body(body): Body<DenialBody>,
) -> Result<impl IntoResponse, Problem> {
    let DenialBody { kind, value, group, reason, duration_s } = body;
    let kind = match kind {
        DenialSort::Hash => DenialKind::Hash,
        DenialSort::Path => DenialKind::Path,
    };
    let new = NewDenial { kind, value, group, reason, duration_s };
    let (one, new) = api.app.denial_add(new, &who.actor).await?;
    let reach = api.app.denial_reach(&one).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(DenialView::of(one, reach))))
}

/// A denial.
#[utoipa::path(get, path = "/api/v1/denials/{id}", tag = "denials",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = DenialView), (status = 404, body = Problem)))]
pub(super) async fn denial_get(
    State(api): State<Arc<Api>>,
    Id(id): Id<Uuid>,
) -> Result<Json<DenialView>, Problem> {
    let one = api.app.denial_get(id).await?;
    let reach = api.app.denial_reach(&one).await?;
    Ok(Json(DenialView::of(one, reach)))
}

/// Take one back. What was quarantined stays there.
#[utoipa::path(delete, path = "/api/v1/denials/{id}", tag = "denials",
    params(("id" = Uuid, Path), RemoveParams),
    responses((status = 200, body = DenialView), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn denial_remove(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    Params(params): Params<RemoveParams>,
) -> Result<Json<DenialView>, Problem> {
    let one = api.app.denial_remove(id, &params.reason, &who.actor).await?;
    let reach = api.app.denial_reach(&one).await?;
    Ok(Json(DenialView::of(one, reach)))
}

/// The hosts that it is for, in the order of their enrollment, and how each stands.
#[utoipa::path(get, path = "/api/v1/denials/{id}/hosts", tag = "denials",
    params(("id" = Uuid, Path), PageParams),
    responses((status = 200, body = Page<DenialHostView>), (status = 404, body = Problem)))]
pub(super) async fn denial_hosts(
    State(api): State<Arc<Api>>,
    Id(id): Id<Uuid>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<DenialHostView>>, Problem> {
    let limit = page.limit()?;
    let (one, hosts) = api.app.denial_hosts(id, page.cursor()?, limit + 1).await?;
    let show = |host| DenialHostView::of(host, &one);
    Ok(Json(Page::of(hosts, limit, |host| host.number, show)))
}
