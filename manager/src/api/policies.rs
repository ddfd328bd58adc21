//! Policies, their versions and roll-outs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use holdfast_common::policy::Document;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::access::Caller;
use super::extract::{Body, Id, Page, PageParams, Params};
use super::problem::Problem;
use crate::app::{Content, Course, PolicyDetail, Put, RolloutState, Steer};
use crate::store::policies::{HostPolicy, Member, Version};

/// Hosts that a roll-out's answer names, the ones with something to say first.
const MOST_HOSTS: usize = 500;

/// A policy.
#[derive(Serialize, ToSchema)]
pub(super) struct PolicyView {
    id: Uuid,
    name: String,
    /// Groups whose hosts it rules.
    groups: Vec<String>,
    created_ms: i64,
    /// The last version whose roll-out ended well; 0: none.
    stable: i64,
    /// Of its next roll-outs, percent.
    stages: Vec<u32>,
    /// How long all connected hosts of a stage must have run it before the next one begins.
    soak_s: u32,
    /// When a roll-out stops, hosts go back to the version before.
    roll_back: bool,
    /// Its newest version, without document.
    newest: Option<VersionView>,
}

/// A version, and its roll-out.
#[derive(Serialize, ToSchema)]
pub(super) struct VersionView {
    version: i64,
    author: String,
    reason: String,
    created_ms: i64,
    /// rolling, paused, done, stopped or superseded.
    state: String,
    /// Percents.
    stages: Vec<u32>,
    /// The stage that it is in, from 0.
    stage: i64,
    soak_s: i64,
    /// Since when all connected hosts of the stage run it.
    settled_ms: Option<i64>,
    changed_ms: i64,
    /// Why it was stopped.
    why: String,
    /// By which host.
    host: Option<Uuid>,
    /// TOML; with one version only.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    /// What of it weakens hosts much; when it is put, and with one version only.
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<Vec<String>>,
}

/// How a host stands to its policy.
#[derive(Serialize, ToSchema)]
pub(super) struct HostPolicyView {
    /// The policy that it is to run.
    id: Option<Uuid>,
    /// Its name.
    name: Option<String>,
    /// The version that it is to run; 0: none.
    wanted: i64,
    /// The version that it was last given, and when.
    given: i64,
    given_ms: i64,
    /// Its own config takes policies.
    accepts: bool,
    /// What it says that it runs.
    running_id: Option<Uuid>,
    running: i64,
    /// The version that it refused, and why.
    refused: i64,
    why: String,
}

/// A host of a roll-out.
#[derive(Serialize, ToSchema)]
pub(super) struct RolloutHost {
    id: Uuid,
    name: String,
    connected: bool,
    /// Since when it is red.
    red_ms: Option<i64>,
    policy: HostPolicyView,
}

/// How the roll-out of the newest version stands.
#[derive(Serialize, ToSchema)]
pub(super) struct RolloutView {
    rollout: VersionView,
    /// Hosts of the policy's groups.
    hosts: usize,
    /// Those that are to run it.
    wanted: usize,
    /// Those that say that they do.
    running: usize,
    refused: usize,
    /// Those that are to run it and are not connected.
    away: usize,
    /// Those whose own config takes no policies.
    closed: usize,
    /// At most 500 of them: those that refused or are red first.
    members: Vec<RolloutHost>,
}

/// How roll-outs go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyBody {
    /// Unique. Hosts show another one from its next version on.
    #[serde(default)]
    name: Option<String>,
    /// Percents that grow, the last one 100; [5, 25, 100] without it.
    #[serde(default)]
    stages: Option<Vec<u32>>,
    /// 600 without it.
    #[serde(default)]
    soak_s: Option<u32>,
    /// True without it.
    #[serde(default)]
    roll_back: Option<bool>,
}

/// A version that is wanted: a document, or a copy of an older one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionBody {
    /// TOML, as in the agent's config; 64 KiB at most.
    #[serde(default)]
    document: Option<String>,
    /// The version whose document it has: to go back.
    #[serde(default)]
    copy_of: Option<i64>,
    /// To all hosts at once.
    #[serde(default)]
    at_once: bool,
    /// For the history and the audit log.
    reason: String,
}

/// What is to become of a roll-out.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RolloutAction {
    /// No further host gets it.
    Pause,
    /// It goes on.
    Resume,
    /// It ends; hosts go back where the policy says so.
    Stop,
}

/// The same, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RolloutBody {
    action: RolloutAction,
    /// For the audit log.
    reason: String,
}

/// Whose hosts it rules.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupsBody {
    /// All of them: a group that is not named has this policy no more.
    groups: Vec<String>,
    /// For the audit log.
    reason: String,
}

/// What becomes of its groups, and why.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct DeleteParams {
    /// For the audit log.
    #[param(required = true)]
    reason: String,
    /// The policy that its groups have then; without it a policy that has groups is refused.
    reassign: Option<Uuid>,
}

/// Which two versions.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct DiffParams {
    /// The one before the newest without it; 0 is an empty document.
    from: Option<i64>,
    /// The newest without it.
    to: Option<i64>,
}

/// A document that nobody has put yet.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckBody {
    /// TOML; 64 KiB at most.
    document: String,
}

/// What the manager says of a document.
#[derive(Serialize, ToSchema)]
pub(super) struct CheckView {
    /// Why it is no policy; nothing when it is one.
    error: Option<String>,
    /// Where, from 1; nothing where no single place is wrong.
    line: Option<usize>,
    column: Option<usize>,
    /// What of it weakens hosts much.
    warnings: Vec<String>,
}

/// What differs.
#[derive(Serialize, ToSchema)]
pub(super) struct DiffView {
    from: i64,
    to: i64,
    /// Unified; empty where nothing does.
    diff: String,
}

impl PolicyBody {
    fn course(&self, usual: Course) -> Course {
        Course {
            stages: self.stages.clone().unwrap_or(usual.stages),
            soak_s: self.soak_s.unwrap_or(usual.soak_s),
            roll_back: self.roll_back.unwrap_or(usual.roll_back),
        }
    }
}

impl PolicyView {
    fn of(detail: PolicyDetail) -> Self {
        let PolicyDetail { policy, course, groups, newest } = detail;
        Self {
            id: policy.id,
            name: policy.name,
            groups,
            created_ms: policy.created_ms,
            stable: policy.stable,
            stages: course.stages,
            soak_s: course.soak_s,
            roll_back: course.roll_back,
            newest: newest.map(|newest| VersionView::of(newest, false)),
        }
    }
}

impl VersionView {
    fn of(version: Version, whole: bool) -> Self {
        Self {
            version: version.version,
            author: version.author,
            reason: version.reason,
            created_ms: version.created_ms,
            state: version.state,
            stages: serde_json::from_str(&version.stages).unwrap_or_default(),
            stage: version.stage,
            soak_s: version.soak_ms / 1000,
            settled_ms: version.settled_ms,
            changed_ms: version.changed_ms,
            why: version.why,
            host: version.host,
            warnings: whole.then(|| {
                let parsed = Document::parse(version.document.as_bytes());
                parsed.map(|document| document.warnings()).unwrap_or_default()
            }),
            document: whole.then_some(version.document),
        }
    }
}

impl HostPolicyView {
    /// Of a host that was looked at.
    pub(super) fn of(state: HostPolicy, name: Option<String>) -> Self {
        Self {
            id: state.policy,
            name,
            wanted: state.wanted,
            given: state.given,
            given_ms: state.given_ms,
            accepts: state.accepts,
            running_id: state.running_id.parse().ok(),
            running: state.running,
            refused: state.refused,
            why: state.why,
        }
    }
}

impl RolloutView {
    fn of(state: RolloutState) -> Self {
        let RolloutState { version, mut members } = state;
        let id = version.policy.to_string();
        let wanted = |one: &Member| {
            one.state.policy == Some(version.policy) && one.state.wanted == version.version
        };
        let runs =
            |one: &Member| one.state.running_id == id && one.state.running == version.version;
        let refuses =
            |one: &Member| one.state.refused_id == id && one.state.refused == version.version;
        let count = |fits: &dyn Fn(&Member) -> bool| members.iter().filter(|one| fits(one)).count();
        let (hosts, wanted_count) = (members.len(), count(&wanted));
        let (running, refused) = (count(&runs), count(&refuses));
        let away = count(&|one| wanted(one) && !one.connected);
        let closed = count(&|one| !one.state.accepts);
        members.sort_by_key(|one| (!refuses(one), one.red_ms.is_none(), !wanted(one)));
        members.truncate(MOST_HOSTS);
        let show = |one: Member| RolloutHost {
            id: one.id,
            name: one.name,
            connected: one.connected,
            red_ms: one.red_ms,
            policy: HostPolicyView::of(one.state, None),
        };
        let members = members.into_iter().map(show).collect();
        let rollout = VersionView::of(version, false);
        Self { rollout, hosts, wanted: wanted_count, running, refused, away, closed, members }
    }
}

/// All policies by name.
#[utoipa::path(get, path = "/api/v1/policies", tag = "policies",
    responses((status = 200, body = Vec<PolicyView>)))]
pub(super) async fn policy_list(
    State(api): State<Arc<Api>>,
) -> Result<Json<Vec<PolicyView>>, Problem> {
    Ok(Json(api.app.policy_list().await?.into_iter().map(PolicyView::of).collect()))
}

/// Make a policy. It rules nobody and holds nothing yet.
#[utoipa::path(post, path = "/api/v1/policies", tag = "policies", request_body = PolicyBody,
    responses((status = 201, body = PolicyView), (status = 400, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn policy_create(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Body(body): Body<PolicyBody>,
) -> Result<impl IntoResponse, Problem> {
    let course = body.course(Course::default());
    let name = body.name.ok_or_else(|| Problem::bad("name: it needs one"))?;
    let made = api.app.policy_create(&name, &course, &who.actor).await?;
    Ok((StatusCode::CREATED, Json(PolicyView::of(made))))
}

/// A policy.
#[utoipa::path(get, path = "/api/v1/policies/{id}", tag = "policies",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = PolicyView), (status = 404, body = Problem)))]
pub(super) async fn policy_get(
    State(api): State<Arc<Api>>,
    Id(id): Id<Uuid>,
) -> Result<Json<PolicyView>, Problem> {
    Ok(Json(PolicyView::of(api.app.policy_get(id).await?)))
}

/// Change its name, or how its next roll-outs go; what is not named stays.
#[utoipa::path(patch, path = "/api/v1/policies/{id}", tag = "policies",
    params(("id" = Uuid, Path)), request_body = PolicyBody,
    responses((status = 200, body = PolicyView), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn policy_edit(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    Body(body): Body<PolicyBody>,
) -> Result<Json<PolicyView>, Problem> {
    let mut detail = api.app.policy_get(id).await?;
    if let Some(name) = &body.name {
        detail = api.app.policy_rename(id, name, &who.actor).await?;
    }
    if body.stages.is_some() || body.soak_s.is_some() || body.roll_back.is_some() {
        let course = body.course(detail.course);
        detail = api.app.policy_edit(id, &course, &who.actor).await?;
    }
    Ok(Json(PolicyView::of(detail)))
}

/// Take a policy away with its versions. One that rules groups is refused with their names.
#[utoipa::path(delete, path = "/api/v1/policies/{id}", tag = "policies",
    params(("id" = Uuid, Path), DeleteParams),
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn policy_delete(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    Params(params): Params<DeleteParams>,
) -> Result<StatusCode, Problem> {
    api.app.policy_delete(id, params.reassign, &params.reason, &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Say whose hosts it rules. A group that had another policy has this one then.
#[utoipa::path(put, path = "/api/v1/policies/{id}/groups", tag = "policies",
    params(("id" = Uuid, Path)), request_body = GroupsBody,
    responses((status = 200, body = PolicyView), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn policy_assign(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    Body(body): Body<GroupsBody>,
) -> Result<Json<PolicyView>, Problem> {
    let assigned = api.app.policy_assign(id, &body.groups, &body.reason, &who.actor).await?;
    Ok(Json(PolicyView::of(assigned)))
}

/// Versions, newest first, without their documents.
#[utoipa::path(get, path = "/api/v1/policies/{id}/versions", tag = "policies",
    params(("id" = Uuid, Path), PageParams),
    responses((status = 200, body = Page<VersionView>), (status = 404, body = Problem)))]
pub(super) async fn version_list(
    State(api): State<Arc<Api>>,
    Id(id): Id<Uuid>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<VersionView>>, Problem> {
    let limit = page.limit()?;
    let list = api.app.policy_versions(id, page.cursor()?, limit + 1).await?;
    Ok(Json(Page::of(list, limit, |one| one.version, |one| VersionView::of(one, false))))
}

/// Put a new version; its roll-out begins, and one that is under way ends where it is.
#[utoipa::path(post, path = "/api/v1/policies/{id}/versions", tag = "policies",
    params(("id" = Uuid, Path)), request_body = VersionBody,
    responses((status = 201, body = VersionView), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn version_put(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    Body(body): Body<VersionBody>,
) -> Result<impl IntoResponse, Problem> {
    let content = match (body.document, body.copy_of) {
        (Some(document), None) => Content::Document(document),
        (None, Some(version)) => Content::CopyOf(version),
        (None, None) | (Some(_), Some(_)) => {
            return Err(Problem::bad("either document or copy_of"));
        }
    };
    let put = api.app.policy_put(id, content, body.at_once, &body.reason, &who.actor).await?;
    let Put { version, warnings } = put;
    let view = VersionView { warnings: Some(warnings), ..VersionView::of(version, true) };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Check a document as putting it would, and keep nothing.
#[utoipa::path(post, path = "/api/v1/policies/check", tag = "policies", request_body = CheckBody,
    responses((status = 200, body = CheckView), (status = 400, body = Problem)))]
pub(super) async fn policy_check(Body(body): Body<CheckBody>) -> Json<CheckView> {
    Json(match Document::parse(body.document.as_bytes()) {
        Ok(document) => {
            CheckView { error: None, line: None, column: None, warnings: document.warnings() }
        }
        Err(error) => {
            let (line, column) = error.place().unzip();
            CheckView { error: Some(error.to_string()), line, column, warnings: Vec::new() }
        }
    })
}

/// A version with its document.
#[utoipa::path(get, path = "/api/v1/policies/{id}/versions/{version}", tag = "policies",
    params(("id" = Uuid, Path), ("version" = i64, Path)),
    responses((status = 200, body = VersionView), (status = 404, body = Problem)))]
pub(super) async fn version_get(
    State(api): State<Arc<Api>>,
    Id((id, version)): Id<(Uuid, i64)>,
) -> Result<Json<VersionView>, Problem> {
    Ok(Json(VersionView::of(api.app.policy_version(id, version).await?, true)))
}

/// What differs between two versions.
#[utoipa::path(get, path = "/api/v1/policies/{id}/diff", tag = "policies",
    params(("id" = Uuid, Path), DiffParams),
    responses((status = 200, body = DiffView), (status = 404, body = Problem)))]
pub(super) async fn version_diff(
    State(api): State<Arc<Api>>,
    Id(id): Id<Uuid>,
    Params(params): Params<DiffParams>,
) -> Result<Json<DiffView>, Problem> {
    let newest = api.app.policy_get(id).await?.newest.map_or(0, |newest| newest.version);
    let to = params.to.unwrap_or(newest);
    let from = params.from.unwrap_or_else(|| to.saturating_sub(1).max(0));
    let diff = api.app.policy_diff(id, from, to).await?;
    Ok(Json(DiffView { from, to, diff }))
}

/// How the roll-out of the newest version stands.
#[utoipa::path(get, path = "/api/v1/policies/{id}/rollout", tag = "policies",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = RolloutView), (status = 404, body = Problem)))]
pub(super) async fn rollout_get(
    State(api): State<Arc<Api>>,
    Id(id): Id<Uuid>,
) -> Result<Json<RolloutView>, Problem> {
    Ok(Json(RolloutView::of(api.app.policy_rollout(id).await?)))
}

/// Let it wait, go on or end.
#[utoipa::path(post, path = "/api/v1/policies/{id}/rollout", tag = "policies",
    params(("id" = Uuid, Path)), request_body = RolloutBody,
    responses((status = 200, body = RolloutView), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn rollout_steer(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    Body(body): Body<RolloutBody>,
) -> Result<Json<RolloutView>, Problem> {
    let steer = match body.action {
        RolloutAction::Pause => Steer::Pause,
        RolloutAction::Resume => Steer::Resume,
        RolloutAction::Stop => Steer::Stop,
    };
    let state = api.app.policy_steer(id, steer, &body.reason, &who.actor).await?;
    Ok(Json(RolloutView::of(state)))
}
