//! SigmaHQ's Linux rules, unmodified: how many load, how many can fire, and that the engine finds
//! exactly what rsigma alone finds, on events made from the rules themselves.
//!
//! A rule counts as able to fire only if an event made from its text, of a kind that the sensor
//! tells, really fires it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use holdfast_agent::detect::book::Book;
use holdfast_agent::detect::engine::Engine;
use holdfast_agent::detect::names::Names;
use holdfast_agent::detect::rules::Collected;
use holdfast_agent::detect::view::{Source, Subject};
use holdfast_common::event::{
    Activity, ActivityEvent, EventBody, ExecEvent, FileEvent, NetworkEvent,
};
use holdfast_common::process::{ProcessInfo, ProcessKey};
use regex_syntax::hir::{Class, Hir, HirKind};
use rsigma_eval::event::{Event, JsonEvent};
use rsigma_eval::{CompiledDetection, CompiledMatcher, CompiledRule, evaluate_rule};
use rsigma_parser::{ConditionExpr, Quantifier};

/// Rules that can fire here, of those that load. The closest open agent reaches 177 of 248.
const LOADED: usize = 210;
const CAN_FIRE: usize = 189;

fn folder() -> Option<PathBuf> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/sigma/rules/linux");
    shared.is_dir().then_some(shared)
}

/// As [`Collected::add_folder`] reads them; the shared folder need not be root's.
fn collect(folder: &Path) -> Collected {
    fn below(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                below(&path, files);
            } else if path.extension().is_some_and(|ending| ending == "yml") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    below(folder, &mut files);
    files.sort();
    let mut collected = Collected::default();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("rule");
        collected.add(&file.display().to_string(), &text);
    }
    collected
}

/// What a field must hold.
#[derive(Debug, Clone, Default)]
struct Wanted {
    whole: Option<String>,
    start: String,
    parts: Vec<String>,
    end: String,
}

type Fields = BTreeMap<String, Wanted>;

impl Wanted {
    fn text(&self) -> String {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        format!("{}{}{}", self.start, self.parts.join(" "), self.end)
    }

    fn merge(&mut self, other: &Self) {
        if other.whole.is_some() {
            self.whole.clone_from(&other.whole);
        }
        for (own, theirs) in [(&mut self.start, &other.start), (&mut self.end, &other.end)] {
            if !theirs.is_empty() {
                own.clone_from(theirs);
            }
        }
        self.parts.extend(other.parts.iter().cloned());
    }
}

const MOST: usize = 48;

fn both(left: Vec<Fields>, right: &[Fields]) -> Vec<Fields> {
    let mut all = Vec::new();
    for one in &left {
        for two in right {
            let mut fields = one.clone();
            for (name, wanted) in two {
                fields.entry(name.clone()).or_default().merge(wanted);
            }
            all.push(fields);
        }
    }
    all.truncate(MOST * 4);
    all
}

fn all_of(parts: impl Iterator<Item = Vec<Fields>>) -> Vec<Fields> {
    parts.fold(vec![Fields::new()], |left, right| both(left, &right))
}

fn of_condition(condition: &ConditionExpr, rule: &CompiledRule) -> Vec<Fields> {
    match condition {
        ConditionExpr::Identifier(name) => of_detection(&rule.detections[name]),
        ConditionExpr::And(all) => all_of(all.iter().map(|one| of_condition(one, rule))),
        ConditionExpr::Or(all) => all.iter().flat_map(|one| of_condition(one, rule)).collect(),
        ConditionExpr::Not(_) => vec![Fields::new()],
        ConditionExpr::Selector { quantifier, pattern } => {
            let mut chosen: Vec<_> = rule
                .detections
                .iter()
                .filter(|(name, _)| pattern.matches_detection_name(name))
                .collect();
            chosen.sort_by_key(|(name, _)| name.as_str());
            let chosen = chosen.into_iter().map(|(_, detection)| of_detection(detection));
            match quantifier {
                Quantifier::All => all_of(chosen),
                Quantifier::Any | Quantifier::Count(_) => chosen.flatten().collect(),
            }
        }
    }
}

fn of_detection(detection: &CompiledDetection) -> Vec<Fields> {
    match detection {
        CompiledDetection::AllOf(items) => all_of(items.iter().map(|item| {
            let field = item.field.as_deref().unwrap_or("keyword");
            if item.exists == Some(false) {
                return vec![Fields::new()];
            }
            of_matcher(field, &item.matcher)
        })),
        CompiledDetection::AnyOf(all) => all.iter().flat_map(of_detection).collect(),
        CompiledDetection::And(all) => all_of(all.iter().map(of_detection)),
        CompiledDetection::Keywords(matcher) => of_matcher("keyword", matcher),
        CompiledDetection::ArrayMatch { .. } | CompiledDetection::Conditional { .. } => vec![],
    }
}

fn of_matcher(field: &str, matcher: &CompiledMatcher) -> Vec<Fields> {
    let one = |wanted: Wanted| vec![Fields::from([(field.to_owned(), wanted)])];
    let whole = |text: String| one(Wanted { whole: Some(text), ..Wanted::default() });
    let part = |text: &str| one(Wanted { parts: vec![text.to_owned()], ..Wanted::default() });
    let mut found = match matcher {
        CompiledMatcher::Exact { value, .. } => whole(value.clone()),
        CompiledMatcher::Contains { value, .. } => part(value),
        CompiledMatcher::StartsWith { value, .. } => {
            one(Wanted { start: value.clone(), ..Wanted::default() })
        }
        CompiledMatcher::EndsWith { value, .. } => {
            one(Wanted { end: value.clone(), ..Wanted::default() })
        }
        CompiledMatcher::AhoCorasickSet { needles, .. } => {
            needles.iter().flat_map(|needle| part(needle)).collect()
        }
        CompiledMatcher::Regex(regex) => part(&sample_of(regex.as_str())),
        CompiledMatcher::RegexSetMatch { set, .. } => {
            set.patterns().iter().flat_map(|pattern| part(&sample_of(pattern))).collect()
        }
        CompiledMatcher::NumericEq(number) => whole(number.to_string()),
        CompiledMatcher::NumericGte(number) => whole(number.to_string()),
        CompiledMatcher::Cidr(net) => whole(net.addr().to_string()),
        CompiledMatcher::Exists(true) => whole("x".to_owned()),
        CompiledMatcher::AnyOf(all) => all.iter().flat_map(|one| of_matcher(field, one)).collect(),
        CompiledMatcher::AllOf(all) => all_of(all.iter().map(|one| of_matcher(field, one))),
        CompiledMatcher::CaseInsensitiveGroup { children, mode } => match mode {
            rsigma_eval::matcher::GroupMode::Any => {
                children.iter().flat_map(|one| of_matcher(field, one)).collect()
            }
            rsigma_eval::matcher::GroupMode::All => {
                all_of(children.iter().map(|one| of_matcher(field, one)))
            }
        },
        _ => vec![Fields::new()],
    };
    found.truncate(MOST);
    found
}

/// A text that the pattern matches.
fn sample_of(pattern: &str) -> String {
    fn add(hir: &Hir, text: &mut String) {
        match hir.kind() {
            HirKind::Literal(literal) => text.push_str(&String::from_utf8_lossy(&literal.0)),
            HirKind::Class(Class::Unicode(class)) => {
                let letter = class.ranges().iter().find(|range| range.end() >= 'a');
                let range = letter.or(class.ranges().first()).expect("range");
                text.push(range.start().max(if range.end() >= 'a' { 'a' } else { range.start() }));
            }
            HirKind::Class(Class::Bytes(_)) | HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Repetition(repetition) => {
                for _ in 0..repetition.min {
                    add(&repetition.sub, text);
                }
            }
            HirKind::Capture(capture) => add(&capture.sub, text),
            HirKind::Concat(all) => all.iter().for_each(|one| add(one, text)),
            HirKind::Alternation(all) => add(all.last().expect("alternative"), text),
        }
    }
    let pattern = pattern.strip_prefix("(?i)").unwrap_or(pattern);
    let mut text = String::new();
    add(&regex_syntax::parse(pattern).expect("pattern"), &mut text);
    text
}

/// Events of a kind that the sensor tells, with these facts.
fn events(source: Source, fields: &Fields) -> Vec<EventBody> {
    let get = |name: &str| fields.get(name).map(Wanted::text).unwrap_or_default();
    let number = |name: &str| get(name).parse::<u32>().ok();
    let mut process = ProcessInfo {
        key: ProcessKey { pid: 77, start_ns: 10_000_000 },
        exe: get("Image"),
        user: get("User"),
        cwd: get("CurrentDirectory"),
        login_uid: number("LogonId"),
        uid: 1000,
        euid: 1000,
        ..ProcessInfo::default()
    };
    let line = if get("CommandLine").is_empty() { get("keyword") } else { get("CommandLine") };
    if !line.is_empty() {
        process.args = vec![line];
    }
    let parent = ProcessInfo {
        key: ProcessKey { pid: 7, start_ns: 10_000_000 },
        exe: get("ParentImage"),
        args: Some(get("ParentCommandLine")).filter(|line| !line.is_empty()).into_iter().collect(),
        ..ProcessInfo::default()
    };
    let parents = vec![parent];
    match source {
        Source::ProcessCreation => exec(process, parents),
        Source::AuditExecve => {
            let last = (0..20).filter(|at| fields.contains_key(&format!("a{at}"))).max();
            process.args = (0..=last.unwrap_or(0))
                .map(|at| {
                    fields.get(&format!("a{at}")).map_or_else(|| "x".to_owned(), Wanted::text)
                })
                .chain(Some(get("keyword")).filter(|word| !word.is_empty()))
                .collect();
            exec(process, parents)
        }
        Source::AuditSyscall => {
            process.exe = get("exe");
            process.comm = get("comm");
            process.euid = number("euid").unwrap_or(1000);
            let call = get("SYSCALL");
            if get("key") == "susp_activity" {
                process.exe = "/usr/bin/socat".to_owned();
            }
            if get("key") == "network_connect_4" {
                return network(process, parents, fields);
            }
            let activity = match call.as_str() {
                "memfd_create" => Activity::Memfd { name: "x".to_owned() },
                _ => return exec(process, parents),
            };
            vec![EventBody::Activity(Box::new(ActivityEvent {
                process,
                parents,
                activity,
                count: 1,
            }))]
        }
        Source::AuditPath => {
            let action = match get("nametype").to_ascii_uppercase().as_str() {
                "CREATE" => "create",
                "DELETE" => "delete",
                _ => "write",
            };
            file(process, parents, action, &get("name"))
        }
        Source::FileEvent => file(process, parents, "create", &get("TargetFilename")),
        Source::NetworkConnection => network(process, parents, fields),
        other => panic!("no SigmaHQ rule for Linux looks at {other:?}"),
    }
}

fn exec(process: ProcessInfo, parents: Vec<ProcessInfo>) -> Vec<EventBody> {
    vec![EventBody::Exec(Box::new(ExecEvent { process, parents, count: 1 }))]
}

fn file(
    process: ProcessInfo,
    parents: Vec<ProcessInfo>,
    action: &str,
    path: &str,
) -> Vec<EventBody> {
    // Folders in front, where the rule leaves the beginning open.
    ["", "/etc", "/var/www/", "/root", "/var/www/x"]
        .iter()
        .map(|before| {
            EventBody::File(Box::new(FileEvent {
                process: process.clone(),
                parents: parents.clone(),
                action: action.to_owned(),
                path: format!("{before}{path}"),
                from: None,
                class: "watched".to_owned(),
                mode: None,
                set_id: false,
                count: 1,
            }))
        })
        .collect()
}

fn network(process: ProcessInfo, parents: Vec<ProcessInfo>, fields: &Fields) -> Vec<EventBody> {
    let get = |name: &str| fields.get(name).map(Wanted::text).unwrap_or_default();
    let address = Some(get("DestinationIp")).filter(|address| !address.is_empty());
    vec![EventBody::Network(Box::new(NetworkEvent {
        process,
        parents,
        action: "connect".to_owned(),
        protocol: "tcp".to_owned(),
        local_address: "192.0.2.1".to_owned(),
        local_port: 40_000,
        remote_address: address.unwrap_or_else(|| "198.51.100.7".to_owned()),
        remote_port: get("DestinationPort").parse().unwrap_or(443),
        dns_name: get("DestinationHostname"),
        dns_type: String::new(),
        dns_answers: Vec::new(),
        count: 1,
    }))]
}

/// Events that a rule should match, tried until one does.
fn examples(rule: &CompiledRule) -> Vec<EventBody> {
    let mut all = Vec::new();
    for source in Source::of(&rule.logsource) {
        for condition in &rule.conditions {
            for fields in of_condition(condition, rule).iter().take(MOST) {
                all.extend(events(source, fields));
            }
        }
    }
    all
}

/// Rules that rsigma alone finds, one by one, on the event as JSON.
fn plainly(rules: &[CompiledRule], event: &EventBody, names: &Names) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let Some(subject) = Subject::of(event, names) else { return found };
    for source in subject.sources() {
        let view = subject.seen_as(*source);
        let json = view.to_json();
        for (number, rule) in rules.iter().enumerate() {
            if !Source::of(&rule.logsource).contains(source) {
                continue;
            }
            // Keywords are looked for in some fields alone, which JSON does not tell.
            let keywords = rule
                .detections
                .values()
                .any(|detection| matches!(detection, CompiledDetection::Keywords(_)));
            let matched = if keywords {
                evaluate_rule(rule, &view)
            } else {
                evaluate_rule(rule, &JsonEvent::borrow(&json))
            };
            if matched.is_some() {
                found.insert(number);
            }
        }
    }
    found
}

fn by_engine(engine: &Engine, event: &EventBody, names: &Names) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let Some(subject) = Subject::of(event, names) else { return found };
    for source in subject.sources() {
        engine.matches(&subject.seen_as(*source), &mut |number| {
            found.insert(number);
        });
    }
    found
}

fn change(event: &EventBody, change: &dyn Fn(&str) -> String) -> EventBody {
    let mut event = event.clone();
    let process = |process: &mut ProcessInfo| {
        process.exe = change(&process.exe);
        process.comm = change(&process.comm);
        for argument in &mut process.args {
            *argument = change(argument);
        }
    };
    match &mut event {
        EventBody::Exec(exec) => {
            process(&mut exec.process);
            exec.parents.iter_mut().for_each(process);
        }
        EventBody::File(file) => {
            process(&mut file.process);
            file.path = change(&file.path);
        }
        EventBody::Network(network) => {
            process(&mut network.process);
            network.dns_name = change(&network.dns_name);
        }
        EventBody::Activity(activity) => process(&mut activity.process),
        _ => {}
    }
    event
}

#[test]
fn every_linux_rule_loads_and_those_that_can_fire_do() {
    let Some(folder) = folder() else {
        println!("SKIP every_linux_rule_loads_and_those_that_can_fire_do: no shared data");
        return;
    };
    let collected = collect(&folder);
    assert_eq!(collected.refused, []);
    assert_eq!(collected.rules.len(), LOADED);
    let book = Book::new(collected);
    assert_eq!(book.refused, []);
    let names = Names::default();
    let mut wrong = Vec::new();
    let mut can = 0;
    for (number, model) in book.models.iter().enumerate() {
        let rule = &book.engine.rules()[number];
        if let Some(why) = &model.why_not {
            println!("cannot fire: {} ({}): {why}", model.title, model.origin);
            continue;
        }
        can += 1;
        let fires = |event: &EventBody| by_engine(&book.engine, event, &names).contains(&number);
        if !examples(rule).iter().any(fires) {
            wrong.push(format!("{}: {:?}", model.origin, examples(rule).first()));
        }
    }
    println!("{can} of {LOADED} can fire");
    assert!(wrong.is_empty(), "said to fire, and no example does: {wrong:#?}");
    assert_eq!(can, CAN_FIRE);
}

#[test]
fn the_engine_finds_what_rsigma_alone_finds() {
    let Some(folder) = folder() else {
        println!("SKIP the_engine_finds_what_rsigma_alone_finds: no shared data");
        return;
    };
    let mut collected = collect(&folder);
    let shipped = Book::read(None).expect("shipped").engine.rules().to_vec();
    for rule in shipped {
        collected.rules.push(holdfast_agent::detect::rules::Named {
            rule,
            name: None,
            origin: "shipped".to_owned(),
        });
    }
    let rules: Vec<_> = collected.rules.into_iter().map(|named| named.rule).collect();
    let engine = Engine::new(rules.clone()).expect("engine");
    let names = Names::default();
    let changes: [&dyn Fn(&str) -> String; 9] = [
        &|text| text.to_owned(),
        &|text| text.to_uppercase(),
        &|text| text.chars().skip(1).collect(),
        &|text| {
            let mut text = text.to_owned();
            text.pop();
            text
        },
        &|text| format!("{text} \u{e9}\u{c9}"),
        &|text| format!("\u{212a}{text}"),
        // Letters whose lower case is ASCII, or has another length.
        &|text| text.replace(['k', 'K'], "\u{212a}").replace('i', "\u{130}"),
        // An S that has no other case, but is one to a regular expression.
        &|text| text.replace(['s', 'S'], "\u{17f}"),
        &|text| text.chars().rev().collect(),
    ];
    let (mut compared, mut matched) = (0, 0);
    for rule in &rules {
        if Source::of(&rule.logsource).iter().any(|source| {
            !matches!(
                source,
                Source::ProcessCreation
                    | Source::AuditExecve
                    | Source::AuditSyscall
                    | Source::AuditPath
                    | Source::FileEvent
                    | Source::NetworkConnection
            )
        }) {
            continue;
        }
        for event in examples(rule).iter().take(12) {
            for changed in changes {
                let event = change(event, changed);
                let expected = plainly(&rules, &event, &names);
                assert_eq!(by_engine(&engine, &event, &names), expected, "{event:#?}");
                compared += 1;
                matched += expected.len();
            }
        }
    }
    println!("{compared} events compared, {matched} matches");
    assert!(compared > 5000 && matched > 2000, "{compared} {matched}");
}
