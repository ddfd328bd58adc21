//! What lies in the hosts' quarantines. What is done with it is a response task.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::extract::{Id, Page, PageParams, Params};
use super::problem::Problem;
use crate::store::quarantine::{ItemFilter, QuarantineItem};

/// A quarantined file.
#[derive(Serialize, ToSchema)]
pub(super) struct ItemView {
    /// For tasks: `{"action": "restore", "item": …}`.
    item: Uuid,
    host_id: Uuid,
    host: String,
    /// Where the file was, or is again.
    path: String,
    size: i64,
    sha256: String,
    md5: String,
    /// What matched.
    signature: String,
    /// Number of the detection's event, for `/api/v1/events/{number}`.
    event: Option<String>,
    /// When it was sealed, by the host's clock.
    sealed_ms: i64,
    /// held, restored, restored_and_allowed or deleted.
    state: String,
    /// Since when.
    state_ms: i64,
}

impl From<QuarantineItem> for ItemView {
    fn from(item: QuarantineItem) -> Self {
        Self {
            item: item.item,
            host_id: item.host,
            host: item.host_name,
            path: item.path,
            size: item.size,
            sha256: item.sha256,
            md5: item.md5,
            signature: item.signature,
            event: item.event.map(|number| number.to_string()),
            sealed_ms: item.sealed_ms,
            state: item.state,
            state_ms: item.state_ms,
        }
    }
}

/// Which items.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct ItemParams {
    host: Option<Uuid>,
    /// held, restored, restored_and_allowed or deleted; all without it.
    state: Option<String>,
    /// Of the content.
    sha256: Option<String>,
}

/// Quarantined files of all hosts, newest first.
#[utoipa::path(get, path = "/api/v1/quarantine", tag = "quarantine",
    params(ItemParams, PageParams),
    responses((status = 200, body = Page<ItemView>), (status = 400, body = Problem)))]
pub(super) async fn item_list(
    State(api): State<Arc<Api>>,
    Params(params): Params<ItemParams>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<ItemView>>, Problem> {
    let limit = page.limit()?;
    let filter = ItemFilter {
        host: params.host,
        state: params.state,
        sha256: params.sha256.map(|hash| hash.to_ascii_lowercase()),
        before: page.cursor()?,
        limit: limit + 1,
    };
    let items = api.app.item_list(&filter).await?;
    Ok(Json(Page::of(items, limit, |item| item.number, ItemView::from)))
}

/// A quarantined file of a host.
#[utoipa::path(get, path = "/api/v1/quarantine/{host}/{item}", tag = "quarantine",
    params(("host" = Uuid, Path), ("item" = Uuid, Path)),
    responses((status = 200, body = ItemView), (status = 404, body = Problem)))]
pub(super) async fn item_get(
    State(api): State<Arc<Api>>,
    Id((host, item)): Id<(Uuid, Uuid)>,
) -> Result<Json<ItemView>, Problem> {
    Ok(Json(api.app.item_get(host, item).await?.into()))
}
