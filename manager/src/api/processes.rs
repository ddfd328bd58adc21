//! A process of a host: what it did, what it started, what started it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use holdfast_common::process::{ProcessInfo, ProcessKey};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::extract::{Id, Params, PeriodParams};
use super::problem::Problem;
use crate::app::profile::{Counts, Deed, Item, Kin, Node};

/// What names a process for ever.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyView {
    pid: u32,
    /// When it started, nanoseconds since the host's boot, in whole ticks of 10 ms.
    start_ns: u64,
}

impl From<ProcessKey> for KeyView {
    fn from(key: ProcessKey) -> Self {
        Self { pid: key.pid, start_ns: key.start_ns }
    }
}

/// What is known of a process. Texts are cut to 1,024 bytes, all arguments to 4,096.
#[derive(Serialize, ToSchema)]
pub(super) struct ProcessView {
    key: KeyView,
    exe: String,
    comm: String,
    args: Vec<String>,
    args_truncated: bool,
    uid: u32,
    euid: u32,
    login_uid: Option<u32>,
    user: String,
    cwd: String,
    container: Option<String>,
    tty: String,
    script: Option<String>,
    /// Of the executable, where it is known.
    sha256: Option<String>,
}

impl From<ProcessInfo> for ProcessView {
    fn from(process: ProcessInfo) -> Self {
        Self {
            key: process.key.into(),
            exe: process.exe,
            comm: process.comm,
            args: process.args,
            args_truncated: process.args_truncated,
            uid: process.uid,
            euid: process.euid,
            login_uid: process.login_uid,
            user: process.user,
            cwd: process.cwd,
            container: process.container,
            tty: process.tty,
            script: process.script,
            sha256: process.sha256,
        }
    }
}

/// How many events of each sort, with those that one event stands for.
#[derive(Serialize, ToSchema)]
pub(super) struct CountsView {
    files: u64,
    connections: u64,
    activities: u64,
    detections: u64,
}

impl From<Counts> for CountsView {
    fn from(counts: Counts) -> Self {
        let Counts { files, connections, activities, detections } = counts;
        Self { files, connections, activities, detections }
    }
}

/// An event of a process.
#[derive(Serialize, ToSchema)]
pub(super) struct DeedView {
    /// For GET /api/v1/events/{number}.
    number: String,
    time_ms: i64,
    /// start, file, connection, activity or detection.
    deed: &'static str,
    /// What was done, or detected.
    action: String,
    /// To what.
    what: String,
    /// How many equal ones it stands for.
    count: u64,
}

impl From<Item> for DeedView {
    fn from(item: Item) -> Self {
        let deed = match item.deed {
            Deed::Start => "start",
            Deed::File => "file",
            Deed::Connection => "connection",
            Deed::Activity => "activity",
            Deed::Detection => "detection",
        };
        let (number, time_ms) = (item.number.to_string(), item.time_ms);
        Self { number, time_ms, deed, action: item.action, what: item.what, count: item.count }
    }
}

/// A process of the tree.
#[derive(Serialize, ToSchema)]
pub(super) struct NodeView {
    /// The node above it.
    parent: Option<KeyView>,
    /// ancestor, own or descendant.
    kin: &'static str,
    process: ProcessView,
    /// Its first event's time in the period; nothing where others alone name it.
    first_ms: Option<i64>,
    last_ms: Option<i64>,
    /// When it ended, where that was told.
    ended_ms: Option<i64>,
    counts: CountsView,
    /// Its newest events, newest first, at most 40.
    items: Vec<DeedView>,
    /// Whether there are more of them.
    more: bool,
}

impl From<Node> for NodeView {
    fn from(node: Node) -> Self {
        Self {
            parent: node.parent.map(KeyView::from),
            kin: match node.kin {
                Kin::Ancestor => "ancestor",
                Kin::Own => "own",
                Kin::Descendant => "descendant",
            },
            process: node.process.into(),
            first_ms: node.first_ms,
            last_ms: node.last_ms,
            ended_ms: node.ended_ms,
            counts: node.counts.into(),
            items: node.items.into_iter().map(DeedView::from).collect(),
            more: node.more,
        }
    }
}

/// A process and its kin: one tree.
#[derive(Serialize, ToSchema)]
pub(super) struct ProfileView {
    host_id: Uuid,
    /// From the first ancestor down; a node stands behind the one above it.
    nodes: Vec<NodeView>,
    /// Whether something did not fit: more than 300 processes, 12 generations, 1,000 events of a
    /// search or 4,000 in all, of which the newest are looked at.
    truncated: bool,
}

/// What a process did in the period, its ancestors, and what it started. The process is named by
/// pid and start time: `4242-7310000000`.
#[utoipa::path(get, path = "/api/v1/hosts/{id}/processes/{process}", tag = "hosts",
    params(("id" = Uuid, Path), ("process" = String, Path), PeriodParams),
    responses((status = 200, body = ProfileView), (status = 400, body = Problem),
              (status = 404, body = Problem)))]
pub(super) async fn process_profile(
    State(api): State<Arc<Api>>,
    Id((host, process)): Id<(Uuid, String)>,
    Params(period): Params<PeriodParams>,
) -> Result<Json<ProfileView>, Problem> {
    let Some(key) = key(&process) else {
        return Err(Problem::bad("process: PID-START, as in 4242-7310000000"));
    };
    let profile = api.app.process_profile(host, key, period.period()?).await?;
    let nodes = profile.nodes.into_iter().map(NodeView::from).collect();
    Ok(Json(ProfileView { host_id: host, nodes, truncated: profile.truncated }))
}

fn key(text: &str) -> Option<ProcessKey> {
    let (pid, start_ns) = text.split_once('-')?;
    Some(ProcessKey { pid: pid.parse().ok()?, start_ns: start_ns.parse().ok()? })
}
