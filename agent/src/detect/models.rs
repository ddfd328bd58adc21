//! The detection models in use: which are on, what an event fires, what is kept back.
//!
//! Invariant: one process that does one thing many times fires a model once in [`QUIET`], and
//! one model at most [`FLOOD`] times in that time for all processes together unless something
//! more than a report follows it; what was kept back is counted in the next firing's evidence.
//! On, off and suppressions survive a restart (`models.json`), and so do counts and times of
//! firings (the journal). Nothing here responds.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_common::control::{ModelState, Suppression};
use holdfast_common::event::{EventBody, ModelDetection};
use holdfast_common::link::ModelReach;
use holdfast_common::process::{ProcessInfo, ProcessKey};
use rsigma_eval::EvaluationResult;
use uuid::Uuid;

use super::book::{Book, Model, acts, in_words};
use super::correlate::{Feed, Fired, Windows};
use super::names::Names;
use super::rules::{FolderError, SHIPPED_ORIGIN};
use super::state::{self, SUPPRESSIONS_MAX, Saved, StateError};
use super::view::{Subject, View};
use crate::config;
use crate::journal::{Filter, Journal};
use crate::now_ms;

/// A model fires once in this time for one process.
pub const QUIET: Duration = Duration::from_secs(60);
/// And so often for all of them.
pub const FLOOD: u64 = 60;
/// Pairs of process and model that are remembered; beyond it a firing is not kept back.
const RECENT_MAX: usize = 8192;
/// Correlations that feed correlations that feed…
const CHAIN_MAX: usize = 8;
/// Events that a detection names, the newest.
const EVENTS_MAX: usize = 64;
/// Bytes of one value in the evidence.
const VALUE_MAX: usize = 4096;
const REASON_MAX: usize = 1024;
/// Variables that could make our own CLI run somebody else's code.
const FOREIGN_CODE: [&str; 3] = ["LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH"];

/// Why models were not loaded or changed.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The folder of rules.
    #[error("cannot use the folder of detection models")]
    Folder(#[from] FolderError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// No such model.
    #[error("no detection model {0:?}: neither an id nor a title")]
    Unknown(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Refused(String),
}

/// The models. Can be shared between threads.
pub struct Models {
    book: Book,
    numbers: HashMap<Uuid, usize>,
    names: Names,
    path: PathBuf,
    /// Where `holdfast` itself is, for telling simulations.
    cli: Option<PathBuf>,
    /// Events at or after this are counted as they happen.
    since_ms: i64,
    state: Mutex<State>,
    recall: Mutex<Option<JoinHandle<Fires>>>,
    /// Nobody can choose groups that are taken for one another.
    groups: RandomState,
}

#[derive(Default)]
struct State {
    saved: Saved,
    /// By number of the model.
    on: Vec<bool>,
    /// What config and policy say, by number of the model.
    ruled: Vec<Ruled>,
    fired: Fires,
    suppressed: HashMap<usize, u64>,
    recent: HashMap<(ProcessKey, usize), Recent>,
    minutes: HashMap<usize, Minute>,
    windows: Windows,
}

/// What config and policy say of a model.
struct Ruled {
    response: Vec<config::Response>,
    off: bool,
}

impl Ruled {
    fn by_themselves(book: &Book) -> Vec<Self> {
        let own = |model: &Model| Self { response: model.response.clone(), off: false };
        book.models.iter().map(own).collect()
    }
}

/// Count and time of the last firing, milliseconds since the epoch.
type Fires = HashMap<Uuid, (u64, i64)>;

struct Recent {
    fired: Instant,
    kept_back: u64,
}

/// Firings of one model since a moment.
struct Minute {
    since: Instant,
    fired: u64,
    kept_back: u64,
}

/// One event on its way through the models.
struct Passing<'a, 'b> {
    view: &'b View<'a>,
    subject: &'b Subject<'a>,
    event: Uuid,
    now: Instant,
}

impl Models {
    /// Reads the shipped models, those of the config's folder, and what operators decided.
    ///
    /// # Errors
    /// [`ModelsError`] when the folder or the state file cannot be used, or the config names a
    /// model that is not there. A single rule that is not valid is left out: see
    /// [`Models::refused`].
    pub fn load(state_dir: &Path, config: &config::Models) -> Result<Self, ModelsError> {
        let models = Self::with_book(state_dir, Book::read(config.folder.as_deref())?)?;
        models.rule(config)?;
        Ok(models)
    }

    /// Whether every model is there that this names.
    ///
    /// # Errors
    /// [`ModelsError::Unknown`]
    pub fn check(&self, config: &config::Models) -> Result<(), ModelsError> {
        self.ruled(config).map(drop)
    }

    /// Puts responses in place of the models' own, and switches off. What was so by an earlier call
    /// and is not named is as the models have it.
    ///
    /// # Errors
    /// [`ModelsError::Unknown`]; then nothing has changed.
    pub fn rule(&self, config: &config::Models) -> Result<(), ModelsError> {
        let ruled = self.ruled(config)?;
        let mut state = self.state();
        state.ruled = ruled;
        for (number, model) in self.book.models.iter().enumerate() {
            state.on[number] =
                !state.ruled[number].off && !state.saved.disabled.contains(&model.id);
        }
        Ok(())
    }

    fn ruled(&self, config: &config::Models) -> Result<Vec<Ruled>, ModelsError> {
        let mut ruled = Ruled::by_themselves(&self.book);
        let find =
            |name: &String| self.book.find(name).ok_or_else(|| ModelsError::Unknown(name.clone()));
        for (name, responses) in &config.response {
            ruled[find(name)?].response.clone_from(&responses.0);
        }
        for name in &config.off {
            ruled[find(name)?].off = true;
        }
        Ok(ruled)
    }

    /// With these models.
    ///
    /// # Errors
    /// [`ModelsError::State`]
    pub fn with_book(state_dir: &Path, book: Book) -> Result<Self, ModelsError> {
        let path = state::file(state_dir);
        let saved = state::read(&path)?;
        let on = book.models.iter().map(|model| !saved.disabled.contains(&model.id)).collect();
        let numbers = book.models.iter().enumerate().map(|(at, model)| (model.id, at)).collect();
        let cli = std::env::current_exe().ok().map(|exe| exe.with_file_name("holdfast"));
        let ruled = Ruled::by_themselves(&book);
        let state = Mutex::new(State { saved, on, ruled, ..State::default() });
        Ok(Self {
            book,
            numbers,
            names: Names::default(),
            path,
            cli,
            since_ms: now_ms(),
            state,
            recall: Mutex::default(),
            groups: RandomState::new(),
        })
    }

    /// Rules that were left out, and why.
    #[must_use]
    pub fn refused(&self) -> &[super::rules::Refused] {
        &self.book.refused
    }

    /// The models as they were read.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Detections that this event causes now. `id` is the event's own.
    pub fn evaluate(&self, id: Uuid, event: &EventBody) -> Vec<ModelDetection> {
        self.evaluate_at(id, event, Instant::now())
    }

    /// As if it were `now`.
    pub fn evaluate_at(&self, id: Uuid, event: &EventBody, now: Instant) -> Vec<ModelDetection> {
        if let EventBody::Network(network) = event
            && network.action == "dns_answer"
        {
            self.names.learn(network, now);
        }
        let mut detections = Vec::new();
        let Some(subject) = Subject::of(event, &self.names) else { return detections };
        for source in subject.sources() {
            let view = subject.seen_as(*source);
            let passing = Passing { view: &view, subject: &subject, event: id, now };
            self.book.engine.matches(&view, &mut |model| {
                self.matched(&passing, model, &mut detections);
            });
        }
        detections
    }

    /// How many rules match, and nothing else: for measuring.
    #[must_use]
    pub fn matching(&self, event: &EventBody) -> usize {
        let Some(subject) = Subject::of(event, &self.names) else { return 0 };
        let mut count = 0;
        for source in subject.sources() {
            self.book.engine.matches(&subject.seen_as(*source), &mut |_| count += 1);
        }
        count
    }

    fn matched(
        &self,
        passing: &Passing<'_, '_>,
        number: usize,
        detections: &mut Vec<ModelDetection>,
    ) {
        let model = &self.book.models[number];
        let mut state = self.state();
        if !state.on[number] || state.suppresses(number, model, passing.view) {
            return;
        }
        if model.alone
            && let Some(kept_back) =
                state.admit(number, model, passing.subject.process.key, passing.now)
        {
            let details = self.book.engine.details(number, passing.view);
            let evidence = evidence(passing.view, details.as_ref(), kept_back);
            let response = in_words(&state.ruled[number].response);
            let events = vec![passing.event];
            detections.push(self.detection(model, response, passing, evidence, events));
        }
        if self.book.feeds[number].is_empty() {
            return;
        }
        let mut feeds: Vec<Feed> = self.book.feeds[number].clone();
        for _ in 0..CHAIN_MAX {
            let fired: Vec<_> = feeds
                .drain(..)
                .filter_map(|feed| {
                    let State { on, windows, .. } = &mut *state;
                    if !on[self.book.model_of(feed.correlation)] {
                        return None;
                    }
                    let (view, event, now) = (passing.view, passing.event, passing.now);
                    self.book.correlations.count(windows, feed, view, event, now)
                })
                .collect();
            for fired in fired {
                let number = self.book.model_of(fired.correlation);
                feeds.extend(&self.book.feeds[number]);
                detections.extend(self.correlated(&mut state, passing, number, fired));
            }
        }
    }

    fn correlated(
        &self,
        state: &mut State,
        passing: &Passing<'_, '_>,
        number: usize,
        fired: Fired,
    ) -> Option<ModelDetection> {
        let model = &self.book.models[number];
        if state.suppresses(number, model, passing.view) {
            return None;
        }
        let kept_back = state.admit(number, model, self.actor(&fired), passing.now)?;
        let mut evidence = BTreeMap::new();
        for field in ["Image", "CommandLine", "User", "ParentImage"] {
            put(&mut evidence, field, passing.view.text(field));
        }
        for (field, value) in fired.group {
            put(&mut evidence, &field, Some(value));
        }
        put(&mut evidence, "counted", Some(fired.value.to_string()));
        put_repeated(&mut evidence, kept_back);
        let response = in_words(&state.ruled[number].response);
        Some(self.detection(model, response, passing, evidence, fired.events))
    }

    fn detection(
        &self,
        model: &Model,
        response: String,
        passing: &Passing<'_, '_>,
        evidence: BTreeMap<String, String>,
        mut events: Vec<Uuid>,
    ) -> ModelDetection {
        let (process, parents) = (passing.subject.process, passing.subject.parents);
        events.drain(..events.len().saturating_sub(EVENTS_MAX));
        ModelDetection {
            model_id: model.id,
            title: model.title.clone(),
            level: model.level.clone(),
            attack: model.attack.clone(),
            process: process.clone(),
            parents: parents.to_vec(),
            evidence,
            events,
            advice: model.advice.clone(),
            response,
            responded: String::new(),
            simulated: self.is_simulation(process)
                || parents.iter().any(|one| self.is_simulation(one)),
        }
    }

    /// A group stands where a process does in [`State::recent`]; no process has this pid.
    fn actor(&self, fired: &Fired) -> ProcessKey {
        ProcessKey { pid: u32::MAX, start_ns: self.groups.hash_one(&fired.group) }
    }

    /// `holdfast simulate run`, by the program beside this agent: another program that only calls
    /// itself so is not excused, nor one that carries foreign code.
    fn is_simulation(&self, process: &ProcessInfo) -> bool {
        let ours = self.cli.as_deref().is_some_and(|cli| Path::new(&process.exe) == cli);
        let own_code = FOREIGN_CODE.iter().all(|name| !process.environment.contains_key(*name));
        ours && own_code && process.args.windows(2).any(|pair| pair == ["simulate", "run"])
    }

    /// What the model of this detection answers with.
    #[must_use]
    pub fn responses(&self, detection: &ModelDetection) -> Vec<config::Response> {
        let number = self.numbers.get(&detection.model_id);
        number.map(|number| self.state().ruled[*number].response.clone()).unwrap_or_default()
    }

    /// Counts what the journal knows of earlier firings, on a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn recall(&self, journal: &Journal) -> std::io::Result<()> {
        let (journal, until) = (journal.clone(), self.since_ms);
        let thread = std::thread::Builder::new().name("recall".to_owned()).spawn(move || {
            let mut fires = Fires::new();
            let filter = Filter { kind: Some("model".to_owned()), ..Filter::default() };
            let read = journal.each(&filter, &mut |event| {
                if let EventBody::Model(detection) = &event.body
                    && event.time_ms < until
                {
                    let fired = fires.entry(detection.model_id).or_default();
                    *fired = (fired.0 + 1, fired.1.max(event.time_ms));
                }
                true
            });
            if let Err(error) = read {
                tracing::error!(error = crate::error_chain(&error), "earlier firings are unknown");
            }
            fires
        })?;
        *self.recall.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// All models: the shipped ones first. Rules that only feed correlations are not models.
    pub fn list(&self) -> Vec<ModelState> {
        self.remember();
        let state = self.state();
        let numbered = self.book.models.iter().enumerate();
        numbered.filter(|(_, model)| model.alone).map(|(at, _)| self.shown(&state, at)).collect()
    }

    /// How the shipped ones stand. Waits for nothing.
    pub fn reach(&self) -> Vec<ModelReach> {
        let state = self.state();
        let numbered = self.book.models.iter().enumerate();
        numbered
            .filter(|(_, model)| model.alone && model.origin == SHIPPED_ORIGIN)
            .map(|(at, model)| ModelReach {
                id: model.id,
                enabled: state.on[at],
                why_not: model.why_not.clone(),
            })
            .collect()
    }

    fn shown(&self, state: &State, number: usize) -> ModelState {
        let model = &self.book.models[number];
        let fired = state.fired.get(&model.id).copied();
        ModelState {
            enabled: state.on[number],
            last_fired_ms: fired.map(|(_, time)| time),
            fired: fired.map_or(0, |(count, _)| count),
            suppressed: state.suppressed.get(&number).copied().unwrap_or(0),
            response: in_words(&state.ruled[number].response),
            ..model.state()
        }
    }

    /// Takes in what [`Models::recall`] found, waiting for it.
    fn remember(&self) {
        let mut recall = self.recall.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Ok(earlier)) = recall.take().map(JoinHandle::join) else { return };
        let mut state = self.state();
        for (model, (count, time)) in earlier {
            let fired = state.fired.entry(model).or_default();
            *fired = (fired.0 + count, fired.1.max(time));
        }
    }

    /// Switches a model on or off, by id or exact title.
    ///
    /// # Errors
    /// [`ModelsError::Unknown`], or [`ModelsError::State`] when it could not be saved; then
    /// nothing has changed.
    pub fn switch(&self, model: &str, enabled: bool) -> Result<ModelState, ModelsError> {
        self.remember();
        let number = self.find(model)?;
        let id = self.book.models[number].id;
        let mut state = self.state();
        if enabled && state.ruled[number].off {
            let why = "the config or the manager's policy has this model off (models.off)";
            return Err(ModelsError::Refused(why.to_owned()));
        }
        let mut saved = state.saved.clone();
        saved.disabled.retain(|one| *one != id);
        if !enabled {
            saved.disabled.push(id);
        }
        state::write(&self.path, &saved)?;
        state.saved = saved;
        state.on[number] = enabled;
        Ok(self.shown(&state, number))
    }

    /// Keeps a model from firing for events with this value in a field.
    ///
    /// # Errors
    /// [`ModelsError`]; then nothing has changed.
    pub fn suppress(
        &self,
        model: &str,
        (field, value): (&str, &str),
        until_ms: i64,
        reason: &str,
    ) -> Result<Suppression, ModelsError> {
        let refuse = |why: &str| Err(ModelsError::Refused(why.to_owned()));
        let number = self.find(model)?;
        let now = now_ms();
        if until_ms <= now {
            return refuse("a suppression must end in the future");
        }
        if reason.trim().is_empty() || reason.len() > REASON_MAX {
            return refuse("a suppression needs a reason, of at most 1024 bytes");
        }
        if field.is_empty() || field.len() > 64 || value.len() > VALUE_MAX {
            return refuse("a field has a name of at most 64 bytes and a value of at most 4096");
        }
        if value.chars().all(|c| c == '*') {
            return refuse("this value fits every event: switch the model off instead");
        }
        let mut state = self.state();
        let mut saved = state.saved.clone();
        saved.suppressions.retain(|one| one.until_ms > now);
        if saved.suppressions.len() >= SUPPRESSIONS_MAX {
            return refuse("there are too many suppressions");
        }
        let new = Suppression {
            id: Uuid::now_v7(),
            model: self.book.models[number].id,
            field: field.to_owned(),
            value: value.to_owned(),
            reason: reason.trim().to_owned(),
            since_ms: now,
            until_ms,
            kept_back: 0,
        };
        saved.suppressions.push(new.clone());
        state::write(&self.path, &saved)?;
        state.saved = saved;
        Ok(new)
    }

    /// Those that stand.
    pub fn suppressions(&self) -> Vec<Suppression> {
        let now = now_ms();
        let state = self.state();
        state.saved.suppressions.iter().filter(|one| one.until_ms > now).cloned().collect()
    }

    /// Ends one.
    ///
    /// # Errors
    /// [`ModelsError`] when there is none, or it could not be saved.
    pub fn end_suppression(&self, id: Uuid) -> Result<(), ModelsError> {
        let mut state = self.state();
        let mut saved = state.saved.clone();
        saved.suppressions.retain(|one| one.id != id);
        if saved.suppressions.len() == state.saved.suppressions.len() {
            return Err(ModelsError::Refused(format!("there is no suppression {id}")));
        }
        state::write(&self.path, &saved)?;
        state.saved = saved;
        Ok(())
    }

    fn find(&self, model: &str) -> Result<usize, ModelsError> {
        let found = self.book.find(model).filter(|number| self.book.models[*number].alone);
        found.ok_or_else(|| ModelsError::Unknown(model.to_owned()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// True when a suppression stands for this event; counts it.
    fn suppresses(&mut self, number: usize, model: &Model, view: &View<'_>) -> bool {
        if self.saved.suppressions.is_empty() {
            return false;
        }
        let now = now_ms();
        let standing = self.saved.suppressions.iter_mut().find(|one| {
            one.model == model.id
                && one.until_ms > now
                && view.text(&one.field).is_some_and(|value| fits(&one.value, &value))
        });
        let Some(standing) = standing else { return false };
        standing.kept_back += 1;
        *self.suppressed.entry(number).or_default() += 1;
        true
    }

    /// Counts a match. `None` when it is kept back, else how many were since the last firing.
    fn admit(
        &mut self,
        number: usize,
        model: &Model,
        process: ProcessKey,
        now: Instant,
    ) -> Option<u64> {
        let mut kept_back = 0;
        if let Some(recent) = self.recent.get_mut(&(process, number)) {
            if now.duration_since(recent.fired) < QUIET {
                recent.kept_back += 1;
                return None;
            }
            kept_back = recent.kept_back;
        }
        kept_back += self.admit_this_minute(number, now)?;
        if self.recent.len() >= RECENT_MAX {
            self.recent.retain(|_, recent| now.duration_since(recent.fired) < QUIET);
        }
        if self.recent.len() < RECENT_MAX {
            self.recent.insert((process, number), Recent { fired: now, kept_back: 0 });
        }
        let fired = self.fired.entry(model.id).or_default();
        *fired = (fired.0 + 1, now_ms());
        Some(kept_back)
    }

    fn admit_this_minute(&mut self, number: usize, now: Instant) -> Option<u64> {
        let minute =
            self.minutes.entry(number).or_insert(Minute { since: now, fired: 0, kept_back: 0 });
        let mut kept_back = 0;
        if now.duration_since(minute.since) >= QUIET {
            kept_back = minute.kept_back;
            *minute = Minute { since: now, fired: 0, kept_back: 0 };
        }
        if minute.fired >= FLOOD && !acts(&self.ruled[number].response) {
            minute.kept_back += 1;
            return None;
        }
        minute.fired += 1;
        Some(kept_back)
    }
}

/// `*` stands for any text; all else counts as it is.
fn fits(pattern: &str, value: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|start| value.strip_prefix(start)) else { return false };
    let mut rest = rest;
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// The fields that the rule matched on, what people ask for first, and what was kept back.
fn evidence(
    view: &View<'_>,
    details: Option<&EvaluationResult>,
    kept_back: u64,
) -> BTreeMap<String, String> {
    let mut evidence = BTreeMap::new();
    for field in ["Image", "CommandLine", "User", "ParentImage"] {
        put(&mut evidence, field, view.text(field));
    }
    for field in view.source.own_fields() {
        put(&mut evidence, field, view.text(field));
    }
    if let Some(detection) = details.and_then(EvaluationResult::as_detection) {
        for field in &detection.matched_fields {
            let value = view.text(&field.field).unwrap_or_else(|| match &field.value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            put(&mut evidence, &field.field, Some(value));
        }
        let mut selections = detection.matched_selections.clone();
        selections.sort();
        put(&mut evidence, "matched", Some(selections.join(", ")));
    }
    put_repeated(&mut evidence, kept_back);
    evidence
}

fn put(evidence: &mut BTreeMap<String, String>, field: &str, value: Option<String>) {
    let Some(mut value) = value.filter(|value| !value.is_empty()) else { return };
    let mut end = VALUE_MAX.min(value.len());
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value.truncate(end);
    evidence.insert(field.to_owned(), value);
}

fn put_repeated(evidence: &mut BTreeMap<String, String>, kept_back: u64) {
    if kept_back > 0 {
        evidence.insert("repeated".to_owned(), kept_back.to_string());
    }
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;
