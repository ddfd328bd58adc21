//! The engine against rsigma alone, on generated rules and events: whatever the tables leave out
//! must be what rsigma would not have matched.
//!
//! Rules and events are made of the same few words, so that about everything is nearly hit.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use holdfast_agent::detect::engine::Engine;
use holdfast_agent::detect::names::Names;
use holdfast_agent::detect::rules::Collected;
use holdfast_agent::detect::view::{Source, Subject};
use holdfast_common::event::{EventBody, ExecEvent, FileEvent, NetworkEvent};
use holdfast_common::process::{ProcessInfo, ProcessKey};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use rsigma_eval::{CompiledRule, evaluate_rule};

/// Letters that change their length or become ASCII with their case, too.
static WORDS: [&str; 24] = [
    "",
    "a",
    "sh",
    "/sh",
    "/bin/sh",
    "/bin/bash",
    "/usr/bin/curl",
    "curl",
    "curl -s",
    "-s",
    "/",
    "33",
    "0",
    "1000",
    "connect",
    "execve",
    "SYSCALL",
    "EXECVE",
    "PATH",
    "/etc/shadow",
    "K\u{212a}k",
    "\u{17f}h",
    "\u{130}\u{e9}\u{c9}",
    "x y",
];
static FIELDS: [&str; 22] = [
    "Image",
    "CommandLine",
    "ParentImage",
    "AncestorImage",
    "UserId",
    "HISTFILE",
    "Script",
    "TTY",
    "type",
    "SYSCALL",
    "a0",
    "a1",
    "exe",
    "comm",
    "name",
    "nametype",
    "euid",
    "key",
    "Action",
    "DestinationPort",
    "DestinationHostname",
    "NoSuchField",
];
static MODIFIERS: [&str; 14] = [
    "",
    "",
    "",
    "|contains",
    "|contains",
    "|startswith",
    "|endswith",
    "|contains|all",
    "|cased",
    "|contains|cased",
    "|re",
    "|re|i",
    "|exists",
    "|gte",
];
static CONDITIONS: [&str; 12] = [
    "one",
    "one and two",
    "one or two",
    "one and not two",
    "not one",
    "not one or two",
    "1 of them",
    "all of them",
    "1 of t* or not three",
    "one and (two or three)",
    "(one and two) or (two and three) or not one",
    "one and 1 of t*",
];
static SOURCES: [&str; 6] = [
    "category: process_creation",
    "category: network_connection",
    "category: file_event",
    "category: file_activity",
    "service: auditd",
    "product: linux",
];

static ACTIONS: [&str; 5] = ["connect", "accept", "create", "delete", "exec"];

/// In a YAML text of its own.
fn quoted(text: &str) -> String {
    format!("'{text}'")
}

fn value(modifier: &str) -> BoxedStrategy<String> {
    let word = select(&WORDS[..]);
    match modifier {
        "|exists" => select(vec!["true".to_owned(), "false".to_owned()]).boxed(),
        "|gte" => select(vec!["0".to_owned(), "33".to_owned()]).boxed(),
        "|re" | "|re|i" => {
            let patterns =
                ["(sh|curl)", "^/bin/(ba)?sh$", "-(s|S)\\s?x*", "s+h", "[0-9]{2}", "k|\u{e9}"];
            select(patterns.map(quoted).to_vec()).boxed()
        }
        _ => prop_oneof![
            6 => word.clone().prop_map(quoted),
            2 => word.prop_map(|word| quoted(&format!("*{word}*"))),
            2 => select(vec!["33".to_owned(), "0".to_owned(), "443".to_owned(), "null".to_owned()]),
            1 => select(&WORDS[..]).prop_map(|word| quoted(&word.to_uppercase())),
        ]
        .boxed(),
    }
}

fn item() -> impl Strategy<Value = (String, Vec<String>)> {
    (select(&FIELDS[..]), select(&MODIFIERS[..])).prop_flat_map(|(field, modifier)| {
        let few = if modifier == "|contains|all" { 2..4 } else { 1..4 };
        let many = if matches!(modifier, "|exists" | "|gte") { 1..2 } else { few };
        vec(value(modifier), many).prop_map(move |values| (format!("{field}{modifier}"), values))
    })
}

fn mapping(items: &[(String, Vec<String>)], indent: &str) -> String {
    // A key that comes twice is no YAML.
    let items: BTreeMap<_, _> = items.iter().map(|(key, values)| (key, values)).collect();
    items
        .iter()
        .map(|(key, values)| match values.as_slice() {
            [one] => format!("{indent}{key}: {one}\n"),
            all => format!("{indent}{key}: [{}]\n", all.join(", ")),
        })
        .collect()
}

fn selection() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => vec(item(), 1..4).prop_map(|items| mapping(&items, "      ")),
        2 => vec(item(), 1..4).prop_map(|items| {
            let each = items.iter().map(|item| {
                format!("      -\n{}", mapping(std::slice::from_ref(item), "        "))
            });
            each.collect()
        }),
        2 => vec(select(&WORDS[..]), 1..4).prop_map(|words| {
            words.iter().map(|word| format!("      - {}\n", quoted(word))).collect()
        }),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    let source = select(&SOURCES[..]);
    (source, vec(selection(), 3), select(&CONDITIONS[..])).prop_map(|(source, all, condition)| {
        format!(
            "title: made\nlogsource:\n  {source}\ndetection:\n    one:\n{}    two:\n{}    three:\n{}    condition: {condition}\n",
            all[0], all[1], all[2]
        )
    })
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        5 => select(&WORDS[..]).prop_map(str::to_owned),
        1 => select(&WORDS[..]).prop_map(str::to_uppercase),
        2 => (select(&WORDS[..]), select(&WORDS[..])).prop_map(|(one, two)| format!("{one}{two}")),
    ]
}

fn process() -> impl Strategy<Value = ProcessInfo> {
    let ids = select(vec![0_u32, 33, 1000]);
    let history = proptest::option::of(word());
    (word(), vec(word(), 0..4), ids.clone(), ids, history, word()).prop_map(
        |(exe, args, uid, euid, history, tty)| ProcessInfo {
            key: ProcessKey { pid: 7, start_ns: 1 },
            comm: exe.rsplit('/').next().unwrap_or_default().to_owned(),
            script: args.first().cloned(),
            exe,
            args,
            uid,
            euid,
            tty,
            environment: history.map(|value| ("HISTFILE".to_owned(), value)).into_iter().collect(),
            ..ProcessInfo::default()
        },
    )
}

fn event() -> impl Strategy<Value = EventBody> {
    (process(), vec(process(), 0..3), word(), select(&ACTIONS[..])).prop_map(
        |(process, parents, name, action)| match action {
            "connect" | "accept" => EventBody::Network(Box::new(NetworkEvent {
                process,
                parents,
                action: action.to_owned(),
                protocol: "tcp".to_owned(),
                local_address: "10.0.0.1".to_owned(),
                local_port: 33,
                remote_address: "10.0.0.2".to_owned(),
                remote_port: 443,
                dns_name: name,
                dns_type: String::new(),
                dns_answers: Vec::new(),
                count: 1,
            })),
            "create" | "delete" => EventBody::File(Box::new(FileEvent {
                process,
                parents,
                action: action.to_owned(),
                path: name,
                from: None,
                class: "watched".to_owned(),
                mode: Some(0o644),
                set_id: false,
                count: 1,
            })),
            _ => EventBody::Exec(Box::new(ExecEvent { process, parents, count: 1 })),
        },
    )
}

/// Each rule on each log source, by rsigma, without any table.
fn plainly(rules: &[CompiledRule], subject: &Subject<'_>) -> BTreeSet<(Source, usize)> {
    let mut found = BTreeSet::new();
    for source in subject.sources() {
        let view = subject.seen_as(*source);
        for (number, rule) in rules.iter().enumerate() {
            if Source::of(&rule.logsource).contains(source) && evaluate_rule(rule, &view).is_some()
            {
                found.insert((*source, number));
            }
        }
    }
    found
}

fn by_engine(engine: &Engine, subject: &Subject<'_>) -> BTreeSet<(Source, usize)> {
    let mut found = BTreeSet::new();
    for source in subject.sources() {
        let view = subject.seen_as(*source);
        engine.matches(&view, &mut |number| {
            assert!(found.insert((*source, number)), "named twice");
            assert!(engine.details(number, &view).is_some(), "without details");
        });
    }
    found
}

fn compiled(texts: &[String]) -> Vec<CompiledRule> {
    let mut collected = Collected::default();
    for text in texts {
        collected.add("made", text);
    }
    collected.rules.into_iter().map(|named| named.rule).collect()
}

#[test]
fn the_engine_matches_what_rsigma_matches() {
    let mut runner = TestRunner::new(ProptestConfig::with_cases(400));
    let (written, valid, matched) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let outcome = runner.run(&(vec(rule(), 1..40), vec(event(), 40)), |(texts, events)| {
        let rules = compiled(&texts);
        let engine = Engine::new(rules.clone()).expect("engine");
        let names = Names::default();
        written.set(written.get() + texts.len());
        valid.set(valid.get() + rules.len());
        for event in &events {
            let subject = Subject::of(event, &names).expect("an event for rules");
            let expected = plainly(&rules, &subject);
            matched.set(matched.get() + expected.len());
            prop_assert_eq!(by_engine(&engine, &subject), expected, "{:#?} {:#?}", event, texts);
        }
        Ok(())
    });
    println!("{} rules, {} of them valid, {} matches", written.get(), valid.get(), matched.get());
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // Else it would say little.
    assert!(valid.get() * 2 > written.get() && matched.get() > 10_000);
}

/// More rules than the marks that are kept without allocation, and in more than one word.
#[test]
fn a_thousand_rules_are_told_apart() {
    let texts: Vec<_> = (0..1000)
        .map(|number| {
            format!(
                "title: made {number}\nlogsource:\n  category: process_creation\ndetection:\n  one:\n    Image|endswith: /tool{number}\n    CommandLine|contains: part{number}x\n  condition: one\n"
            )
        })
        .collect();
    let rules = compiled(&texts);
    assert_eq!(rules.len(), 1000);
    let engine = Engine::new(rules).expect("engine");
    let names = Names::default();
    for (tool, part) in [(0, 0), (63, 63), (64, 64), (700, 700), (999, 999), (7, 8), (64, 128)] {
        let process = ProcessInfo {
            exe: format!("/opt/tool{tool}"),
            args: vec![format!("tool part{part}x")],
            ..ProcessInfo::default()
        };
        let event = EventBody::Exec(Box::new(ExecEvent { process, parents: Vec::new(), count: 1 }));
        let subject = Subject::of(&event, &names).expect("an event for rules");
        let found = by_engine(&engine, &subject);
        let expected = (tool == part).then_some((Source::ProcessCreation, tool));
        assert_eq!(found, expected.into_iter().collect(), "{tool} {part}");
    }
}
