//! The detection models that are shipped: which are on, and which an event matches.
//!
//! Invariant: one process that does one thing many times fires a model once in [`QUIET`]; what
//! was kept back is counted in the next firing's evidence. On and off survive a restart
//! (`models.json`); the count of firings is since the agent's start.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_common::control::ModelState;
use holdfast_common::event::{EventBody, ModelDetection};
use holdfast_common::process::{ProcessInfo, ProcessKey};
use rsigma_eval::event::JsonEvent;
use rsigma_eval::{Engine, EvaluationResult};
use rsigma_parser::{LogSource, SigmaRule};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fields::{CATEGORIES, Observation};

/// A model fires once in this time for one process.
pub const QUIET: Duration = Duration::from_secs(60);
/// Pairs of process and model that are remembered; beyond it a firing is not kept back.
const RECENT_MAX: usize = 8192;
const STATE_FILE: &str = "models.json";
const STATE_MAX: u64 = 1 << 20;
const STATE_VERSION: u32 = 1;

/// Our own text, in Sigma's format.
const SHIPPED: [(&str, &str); 2] = [
    ("network_sniffing.yml", include_str!("../../models/network_sniffing.yml")),
    ("self_proof.yml", include_str!("../../models/self_proof.yml")),
];

/// Why models were not loaded or switched.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// A shipped rule is not valid; a fault of the build.
    #[error("detection model {file}: {message}")]
    Rule {
        /// Its file.
        file: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The state file could not be read or written.
    #[error("cannot {action} {path}")]
    State {
        /// read, write.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The state file is not what it should be.
    #[error("{path}: {message}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// No such model.
    #[error("no detection model {0:?}: neither an id nor a title")]
    Unknown(String),
}

/// The models. Can be shared between threads.
pub struct Models {
    engine: Engine,
    rules: Vec<Rule>,
    path: PathBuf,
    /// Where `holdfast` itself is, for telling simulations.
    cli: Option<PathBuf>,
    state: Mutex<State>,
}

struct Rule {
    id: Uuid,
    title: String,
    level: String,
    attack: Vec<String>,
    category: Option<String>,
}

#[derive(Default)]
struct State {
    /// Also of models that this version does not know: they are kept for the one that does.
    disabled: Vec<Uuid>,
    fired: HashMap<Uuid, (u64, i64)>,
    recent: HashMap<(ProcessKey, Uuid), Recent>,
}

struct Recent {
    fired: Instant,
    kept_back: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    disabled: Vec<Uuid>,
}

impl Models {
    /// Compiles the shipped models and reads which are off.
    ///
    /// # Errors
    /// [`ModelsError`] when the state file cannot be read, is not valid, or is of a newer
    /// version. Without a state file all models are on.
    pub fn load(state_dir: &Path) -> Result<Self, ModelsError> {
        let path = state_dir.join(STATE_FILE);
        let mut engine = Engine::new();
        let mut rules = Vec::new();
        for (file, text) in SHIPPED {
            let wrong = |message: String| ModelsError::Rule { file, message };
            let parsed =
                rsigma_parser::parse_sigma_yaml(text).map_err(|error| wrong(error.to_string()))?;
            for rule in &parsed.rules {
                rules.push(Rule::of(rule).ok_or_else(|| wrong("no UUID as id".to_owned()))?);
            }
            engine.add_collection(&parsed).map_err(|error| wrong(error.to_string()))?;
        }
        let disabled = read_state(&path)?;
        let cli = std::env::current_exe().ok().map(|exe| exe.with_file_name("holdfast"));
        let state = Mutex::new(State { disabled, ..State::default() });
        Ok(Self { engine, rules, path, cli, state })
    }

    /// Detections that this event causes now.
    pub fn evaluate(&self, event: &EventBody) -> Vec<ModelDetection> {
        self.evaluate_at(event, Instant::now())
    }

    /// All models, in their shipped order.
    pub fn list(&self) -> Vec<ModelState> {
        let state = self.state();
        self.rules.iter().map(|rule| rule.state(&state)).collect()
    }

    /// Switches a model on or off, by id or exact title.
    ///
    /// # Errors
    /// [`ModelsError::Unknown`], or [`ModelsError::State`] when it could not be saved; then
    /// nothing has changed.
    pub fn switch(&self, model: &str, enabled: bool) -> Result<ModelState, ModelsError> {
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.title == model || Uuid::try_parse(model) == Ok(rule.id))
            .ok_or_else(|| ModelsError::Unknown(model.to_owned()))?;
        let mut state = self.state();
        let mut disabled = state.disabled.clone();
        disabled.retain(|id| *id != rule.id);
        if !enabled {
            disabled.push(rule.id);
        }
        write_state(&self.path, &disabled)?;
        state.disabled = disabled;
        Ok(rule.state(&state))
    }

    fn evaluate_at(&self, event: &EventBody, now: Instant) -> Vec<ModelDetection> {
        let Some(observation) = Observation::of(event) else { return Vec::new() };
        let category = observation.category;
        if !self.rules.iter().any(|rule| rule.looks_at(category)) {
            return Vec::new();
        }
        let source = LogSource {
            category: Some(category.to_owned()),
            product: Some("linux".to_owned()),
            ..LogSource::default()
        };
        let fields = observation.fields();
        let matches = self.engine.evaluate_with_logsource(&JsonEvent::borrow(&fields), &source);
        let mut detections = Vec::new();
        for matched in matches {
            let id = matched.header.rule_id.as_deref().and_then(|id| Uuid::try_parse(id).ok());
            let Some(rule) = self.rules.iter().find(|rule| Some(rule.id) == id) else { continue };
            if let Some(kept_back) = self.admit(rule.id, observation.process.key, now) {
                let evidence = evidence(&matched, &fields, kept_back);
                detections.push(self.detection(rule, &observation, evidence));
            }
        }
        detections
    }

    /// Counts a match. `None` when it is off or kept back, else how many were kept back since
    /// the last firing.
    fn admit(&self, model: Uuid, process: ProcessKey, now: Instant) -> Option<u64> {
        let mut state = self.state();
        if state.disabled.contains(&model) {
            return None;
        }
        let mut kept_back = 0;
        if let Some(recent) = state.recent.get_mut(&(process, model)) {
            if now.duration_since(recent.fired) < QUIET {
                recent.kept_back += 1;
                return None;
            }
            kept_back = recent.kept_back;
        }
        if state.recent.len() >= RECENT_MAX {
            state.recent.retain(|_, recent| now.duration_since(recent.fired) < QUIET);
        }
        if state.recent.len() < RECENT_MAX {
            state.recent.insert((process, model), Recent { fired: now, kept_back: 0 });
        }
        let fired = state.fired.entry(model).or_default();
        *fired = (fired.0 + 1, now_ms());
        Some(kept_back)
    }

    fn detection(
        &self,
        rule: &Rule,
        observation: &Observation<'_>,
        evidence: BTreeMap<String, String>,
    ) -> ModelDetection {
        ModelDetection {
            model_id: rule.id,
            title: rule.title.clone(),
            level: rule.level.clone(),
            attack: rule.attack.clone(),
            process: observation.process.clone(),
            parents: observation.parents.to_vec(),
            evidence,
            events: Vec::new(),
            advice: String::new(),
            response: String::new(),
            responded: String::new(),
            simulated: self.is_simulation(observation.process),
        }
    }

    /// `holdfast simulate run`, by the program beside this agent: another program that only calls
    /// itself so is not excused.
    fn is_simulation(&self, process: &ProcessInfo) -> bool {
        let ours = self.cli.as_deref().is_some_and(|cli| Path::new(&process.exe) == cli);
        ours && process.args.windows(2).any(|pair| pair == ["simulate", "run"])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rule {
    fn of(rule: &SigmaRule) -> Option<Self> {
        let technique = |tag: &String| {
            let name = tag.strip_prefix("attack.")?.to_ascii_uppercase();
            let digits = name.strip_prefix('T')?;
            digits.starts_with(|c: char| c.is_ascii_digit()).then_some(name)
        };
        Some(Self {
            id: Uuid::try_parse(rule.id.as_deref()?).ok()?,
            title: rule.title.clone(),
            level: rule
                .level
                .map_or_else(|| "medium".to_owned(), |level| level.as_str().to_owned()),
            attack: rule.tags.iter().filter_map(technique).collect(),
            category: rule.logsource.category.clone(),
        })
    }

    fn looks_at(&self, category: &str) -> bool {
        self.category.as_deref().is_none_or(|own| own == category)
    }

    fn state(&self, state: &State) -> ModelState {
        let fired = state.fired.get(&self.id).copied();
        let known = CATEGORIES.into_iter().any(|category| self.looks_at(category));
        ModelState {
            id: self.id,
            title: self.title.clone(),
            enabled: !state.disabled.contains(&self.id),
            level: self.level.clone(),
            attack: self.attack.clone(),
            can_fire: known,
            why_not: (!known).then(|| "no event of this agent has its log source".to_owned()),
            last_fired_ms: fired.map(|(_, time)| time),
            fired: fired.map_or(0, |(count, _)| count),
        }
    }
}

/// The fields that the rule matched on, what people ask for first, and what was kept back.
fn evidence(
    matched: &EvaluationResult,
    fields: &serde_json::Value,
    kept_back: u64,
) -> BTreeMap<String, String> {
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut evidence = BTreeMap::new();
    let always = [
        "Image",
        "CommandLine",
        "User",
        "Action",
        "SocketFamily",
        "SocketType",
        "Protocol",
        "Interface",
    ];
    for name in always {
        if let Some(value) = fields.get(name) {
            evidence.insert(name.to_owned(), text(value));
        }
    }
    if let Some(detection) = matched.as_detection() {
        for field in &detection.matched_fields {
            evidence.insert(field.field.clone(), text(&field.value));
        }
        evidence.insert("matched".to_owned(), detection.matched_selections.join(", "));
    }
    if kept_back > 0 {
        evidence.insert("repeated".to_owned(), kept_back.to_string());
    }
    evidence
}

fn read_state(path: &Path) -> Result<Vec<Uuid>, ModelsError> {
    let corrupt = |message: String| ModelsError::Corrupt { path: path.to_owned(), message };
    let read = std::fs::metadata(path).and_then(|facts| {
        if facts.len() > STATE_MAX { Ok(None) } else { std::fs::read(path).map(Some) }
    });
    let bytes = match read {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(corrupt("too large".to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(ModelsError::State { action: "read", path: path.to_owned(), source });
        }
    };
    let saved: Saved =
        serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
    if saved.version != STATE_VERSION {
        return Err(corrupt(format!("version {}, not {STATE_VERSION}", saved.version)));
    }
    Ok(saved.disabled)
}

/// Replaces the file whole: written beside it, synchronised, renamed.
fn write_state(path: &Path, disabled: &[Uuid]) -> Result<(), ModelsError> {
    let saved = Saved { version: STATE_VERSION, disabled: disabled.to_vec() };
    let beside = path.with_extension("json.new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(&saved)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(|source| ModelsError::State { action: "write", path: path.to_owned(), source })
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use holdfast_common::event::{ExecEvent, PacketSocketEvent};

    use super::*;

    const SNIFFING: &str = "Network Sniffing";

    fn models() -> (tempfile::TempDir, Models) {
        let folder = tempfile::tempdir().expect("folder");
        let models = Models::load(folder.path()).expect("shipped models");
        (folder, models)
    }

    fn process(pid: u32, exe: &str) -> ProcessInfo {
        ProcessInfo {
            key: ProcessKey { pid, start_ns: 10_000_000 },
            exe: exe.to_owned(),
            args: vec![exe.to_owned(), "-i".to_owned(), "eth0".to_owned()],
            user: "root".to_owned(),
            ..ProcessInfo::default()
        }
    }

    fn socket(pid: u32, exe: &str, action: &str, family: &str, protocol: u32) -> EventBody {
        EventBody::PacketSocket(Box::new(PacketSocketEvent {
            process: process(pid, exe),
            parents: vec![process(1, "/bin/bash")],
            action: action.to_owned(),
            family: family.to_owned(),
            socket_type: "SOCK_RAW".to_owned(),
            protocol,
            interface: 2,
        }))
    }

    #[test]
    fn tcpdump_fires_once_for_all_that_it_does_to_its_socket() {
        let (_folder, models) = models();
        let mut fired = Vec::new();
        for (action, protocol) in
            [("socket", 0), ("bind", 0), ("promiscuous", 0), ("ring", 0), ("bind", 3)]
        {
            let event = socket(77, "/usr/bin/tcpdump", action, "AF_PACKET", protocol);
            fired.extend(models.evaluate(&event));
        }
        assert_eq!(fired.len(), 1);
        let detection = &fired[0];
        assert_eq!((detection.title.as_str(), detection.level.as_str()), (SNIFFING, "medium"));
        assert_eq!(detection.attack, ["T1040"]);
        assert_eq!(detection.evidence["CommandLine"], "/usr/bin/tcpdump -i eth0");
        assert_eq!(detection.evidence["Action"], "promiscuous");
        assert!(!detection.simulated);
        assert_eq!(models.list()[0].fired, 1);
    }

    #[test]
    fn every_way_to_receive_every_protocol_fires() {
        let ways = [("socket", 3), ("bind", 3), ("found", 3), ("ring", 3), ("promiscuous", 0x800)];
        for (action, protocol) in ways {
            let (_folder, models) = models();
            let event = socket(5, "/usr/bin/python3.13", action, "AF_PACKET", protocol);
            assert_eq!(models.evaluate(&event).len(), 1, "{action} {protocol}");
        }
    }

    #[test]
    fn near_misses_do_not_fire() {
        let (_folder, models) = models();
        for (exe, action, family, protocol) in [
            ("/usr/lib/systemd/systemd-networkd", "bind", "AF_PACKET", 0x0800),
            ("/usr/sbin/NetworkManager", "socket", "AF_PACKET", 0x0800),
            ("/usr/sbin/arping", "bind", "AF_PACKET", 0x0806),
            ("/usr/sbin/lldpd", "bind", "AF_PACKET", 0x88cc),
            ("/usr/sbin/dhclient", "socket", "AF_PACKET", 3),
            ("/usr/bin/ping", "socket", "AF_INET", 1),
            ("/usr/bin/ping", "socket", "AF_INET6", 58),
            // IPPROTO 3 (GGP) is not ETH_P_ALL.
            ("/usr/bin/odd", "socket", "AF_INET", 3),
            ("/usr/bin/tcpdump", "socket", "AF_PACKET", 0),
        ] {
            let event = socket(9, exe, action, family, protocol);
            assert!(models.evaluate(&event).is_empty(), "{exe} {action} {family} {protocol}");
        }
        let exec =
            ExecEvent { process: process(3, "/usr/bin/tcpdump"), parents: Vec::new(), count: 1 };
        assert!(models.evaluate(&EventBody::Exec(Box::new(exec))).is_empty());
        assert!(models.evaluate(&EventBody::AgentStopped).is_empty());
    }

    #[test]
    fn a_sniffer_under_the_name_of_a_dhcp_client_fires_when_it_goes_promiscuous() {
        let (_folder, models) = models();
        for exe in ["/tmp/dhclient", "/tmp/usr/sbin/dhclient"] {
            let event = socket(exe.len() as u32, exe, "socket", "AF_PACKET", 3);
            assert_eq!(models.evaluate(&event).len(), 1, "{exe}");
        }
        let event = socket(3, "/usr/sbin/dhclient", "promiscuous", "AF_PACKET", 3);
        assert_eq!(models.evaluate(&event).len(), 1);
    }

    #[test]
    fn a_repetition_is_kept_back_for_a_minute_and_then_counted() {
        let (_folder, models) = models();
        let event = socket(5, "/usr/bin/tcpdump", "bind", "AF_PACKET", 3);
        let start = Instant::now();
        assert_eq!(models.evaluate_at(&event, start).len(), 1);
        for second in 1..60 {
            let now = start + Duration::from_secs(second);
            assert!(models.evaluate_at(&event, now).is_empty());
        }
        let again = models.evaluate_at(&event, start + QUIET);
        assert_eq!(again[0].evidence["repeated"], "59");
        let other = socket(6, "/usr/bin/tcpdump", "bind", "AF_PACKET", 3);
        assert_eq!(models.evaluate_at(&other, start + QUIET).len(), 1, "another process");
    }

    #[test]
    fn a_model_that_is_off_stays_off_after_a_restart() {
        let (folder, models) = models();
        let event = socket(5, "/usr/bin/tcpdump", "bind", "AF_PACKET", 3);
        assert!(!models.switch(SNIFFING, false).expect("switch").enabled);
        assert!(models.evaluate(&event).is_empty());
        let models = Models::load(folder.path()).expect("again");
        assert!(models.evaluate(&event).is_empty());
        let id = models.list()[0].id.to_string();
        assert!(models.switch(&id, true).expect("switch").enabled);
        assert_eq!(models.evaluate(&event).len(), 1);
        assert!(matches!(models.switch("network sniffing", true), Err(ModelsError::Unknown(_))));
    }

    #[test]
    fn a_broken_or_newer_state_file_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("folder");
        for bad in ["", "{", r#"{"version":2,"disabled":[]}"#, r#"{"version":1,"disabled":[1]}"#] {
            std::fs::write(folder.path().join(STATE_FILE), bad).expect("write");
            let error = Models::load(folder.path()).map(|_| ()).expect_err("refused");
            assert!(error.to_string().contains("models.json"), "{error}");
        }
    }

    #[test]
    fn only_our_own_program_is_a_simulation() {
        let (_folder, models) = models();
        let ours = models.cli.clone().expect("own path").display().to_string();
        let run = |pid, exe: &str, args: &[&str]| {
            let mut process = process(pid, exe);
            process.args = args.iter().map(|argument| (*argument).to_owned()).collect();
            models.is_simulation(&process)
        };
        assert!(run(1, &ours, &["holdfast", "simulate", "run", "network-sniffing"]));
        assert!(!run(2, "/tmp/holdfast", &["holdfast", "simulate", "run", "network-sniffing"]));
        assert!(!run(3, &ours, &["holdfast", "status"]));
    }
}
