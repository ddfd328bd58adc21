//! Detection models: what is shipped, and what it found.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::extract::{Id, Params, PeriodParams};
use super::problem::Problem;
use crate::app::ModelState;

/// What proves a model on a host.
#[derive(Serialize, ToSchema)]
pub(super) struct SimulationView {
    /// For tasks: `{"action": "simulate", "simulation": …}`.
    name: &'static str,
    /// What it does there.
    what: &'static str,
}

/// A detection model that is shipped with agents.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelView {
    id: Uuid,
    title: &'static str,
    description: &'static str,
    /// informational, low, medium, high or critical.
    level: &'static str,
    /// ATT&CK techniques.
    attack: Vec<String>,
    /// ATT&CK tactics, e.g. credential-access.
    tactics: Vec<String>,
    /// What it looks at, as Sigma names it.
    sources: Vec<String>,
    simulation: Option<SimulationView>,
    /// Its alerts that last changed in the period, on all hosts.
    alerts: i64,
    /// Its alerts that are not resolved, whatever their time.
    open: i64,
    /// When it last fired, by that host's clock; nothing when no alert is kept.
    last_ms: Option<i64>,
    /// Hosts that it is on and can fire on, by what they last said.
    fires: i64,
    /// Hosts that have it switched off.
    off: i64,
    /// Hosts that have it on, but lack a fact that it needs.
    blind: i64,
}

/// Why a model cannot fire.
#[derive(Serialize, ToSchema)]
pub(super) struct BlindView {
    /// As the hosts say it.
    reason: String,
    /// How many say so.
    hosts: i64,
}

/// A detection model, whole.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelDetailView {
    model: ModelView,
    /// What to do when it fires.
    advice: &'static str,
    /// What makes it fire and is harmless.
    false_positives: Vec<String>,
    /// Where to read more.
    references: Vec<String>,
    /// The rule in Sigma's format, with those that feed it.
    text: &'static str,
    /// Why it cannot fire where it cannot, the most frequent first, at most 20.
    blind: Vec<BlindView>,
}

impl ModelView {
    fn of(state: &ModelState) -> Self {
        let (model, found) = (state.model, &state.found);
        let simulation =
            model.simulation.map(|one| SimulationView { name: one.name, what: one.what });
        Self {
            id: model.id,
            title: &model.title,
            description: &model.description,
            level: &model.level,
            attack: model.attack.clone(),
            tactics: model.tactics.clone(),
            sources: model.sources.clone(),
            simulation,
            alerts: found.alerts,
            open: found.open,
            last_ms: found.last_ms,
            fires: state.reach.fires,
            off: state.reach.off,
            blind: state.reach.blind,
        }
    }
}

/// All shipped detection models, with what they found in the period.
#[utoipa::path(get, path = "/api/v1/models", tag = "models", params(PeriodParams),
    responses((status = 200, body = Vec<ModelView>), (status = 400, body = Problem)))]
pub(super) async fn model_list(
    State(api): State<Arc<Api>>,
    Params(period): Params<PeriodParams>,
) -> Result<Json<Vec<ModelView>>, Problem> {
    let models = api.app.model_list(period.period()?).await?;
    Ok(Json(models.iter().map(ModelView::of).collect()))
}

/// A detection model with its rule.
#[utoipa::path(get, path = "/api/v1/models/{id}", tag = "models",
    params(("id" = Uuid, Path), PeriodParams),
    responses((status = 200, body = ModelDetailView), (status = 404, body = Problem)))]
pub(super) async fn model_get(
    State(api): State<Arc<Api>>,
    Id(id): Id<Uuid>,
    Params(period): Params<PeriodParams>,
) -> Result<Json<ModelDetailView>, Problem> {
    let state = api.app.model_get(id, period.period()?).await?;
    let reasons = state.reach.reasons.iter();
    let blind = reasons.map(|(reason, hosts)| BlindView { reason: reason.clone(), hosts: *hosts });
    Ok(Json(ModelDetailView {
        model: ModelView::of(&state),
        advice: &state.model.advice,
        false_positives: state.model.false_positives.clone(),
        references: state.model.references.clone(),
        text: state.model.text,
        blind: blind.collect(),
    }))
}
