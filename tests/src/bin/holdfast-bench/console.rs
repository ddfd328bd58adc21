//! `console`: what people wait for in front of the page.
//!
//! The distribution's Chromium, headless, with a profile of its own for each run, on the page that
//! the real `holdfast-manager` serves over TLS; `manager/console/browser/bench.mjs` does what a
//! person would and measures inside the page. INVARIANT: isolation happens in a lab's network.

use std::fs;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use holdfast_tests::agent::Setup;
use holdfast_tests::browser::Browser;
use holdfast_tests::eicar;
use holdfast_tests::fill::fill;
use holdfast_tests::lab::Lab;
use holdfast_tests::manager::Manager;
use holdfast_tests::scratch::Scratch;
use serde_json::{Value, json};

use crate::figures::{Figures, median, percentile};

/// What `--only` takes, in their order.
pub const PARTS: &[&str] = &["paint", "alert", "isolate", "scroll"];

const SCRIPT: &str = "bench.mjs";
const USER: &str = "bench";
const PASSWORD: &str = "a look at a long list";
/// Alerts timed, as the script has it.
const ALERTS: usize = 20;
/// Alerts and hosts of the long lists.
const FILLED: u64 = 100_000;
const HOSTS: u64 = 10_000;
/// Alerts that are changed at once while their list is looked at.
const BURST: usize = 200;

/// Runs the bench, or one part of it; `rounds` cold starts of the browser, of which the medians
/// count.
///
/// # Errors
/// When something does not start or does not come.
pub fn run(rounds: usize, only: Option<&str>) -> Result<Figures> {
    let mut figures = Figures::default();
    for part in PARTS.iter().filter(|part| only.is_none_or(|only| only == **part)) {
        eprintln!("{part}");
        match *part {
            "paint" => paint(rounds, &mut figures)?,
            "alert" => alert(&mut figures)?,
            "isolate" => isolate(&mut figures)?,
            _ => scroll(&mut figures)?,
        }
    }
    Ok(figures)
}

/// Plays one part of the script; the figures that it found, by name.
fn play(
    manager: &Manager,
    part: &str,
    mut act: impl FnMut(&str) -> Result<String>,
) -> Result<Vec<(String, f64)>> {
    let words = [("PART", part), ("USER", USER), ("PASSWORD", PASSWORD)];
    let mut found = Vec::new();
    Browser::start(manager, SCRIPT, &words)?.run(|step| match step.strip_prefix("figure ") {
        Some(figure) => {
            let (name, value) = figure.split_once(' ').context("a name and a value")?;
            found.push((name.to_owned(), value.parse().with_context(|| figure.to_owned())?));
            Ok(String::new())
        }
        None => act(step),
    })?;
    Ok(found)
}

fn nothing(step: &str) -> Result<String> {
    bail!("nobody knows {step}")
}

/// The first look at the page, of a browser that has nothing of it.
fn paint(rounds: usize, figures: &mut Figures) -> Result<()> {
    let manager = Manager::start()?;
    manager.person(USER, "viewer", PASSWORD)?;
    let mut all = Vec::new();
    for _ in 0..rounds {
        all.extend(play(&manager, "paint", nothing)?);
    }
    let of = |wanted: &str| {
        let values: Vec<f64> =
            all.iter().filter(|(name, _)| name == wanted).map(|(_, value)| *value).collect();
        median(&values)
    };
    let what = "address to the page for signing in, cold, ms";
    figures.add("first_paint_ms", of("paint"), what, Some("<= 1000"));
    let what = "the same to the overview, signed in, cold, ms";
    figures.add("first_overview_ms", of("overview"), what, Some("<= 1000"));
    let what = "scripts of that first load as they were sent, KiB";
    figures.add("first_script_kib", of("script"), what, Some("<= 350"));
    Ok(())
}

/// From the write of EICAR on the host to its alert on the open page.
fn alert(figures: &mut Figures) -> Result<()> {
    let scratch = Scratch::ext4()?;
    let agent = Setup::protect([scratch.path()]).start()?;
    let manager = Manager::start()?;
    manager.person(USER, "viewer", PASSWORD)?;
    manager.enroll(&agent, &[])?;
    // Made before: what takes the inode of a file that is in quarantine by now is taken for a file
    // that is written again and again, and rests for two seconds.
    let mut files = Vec::new();
    for number in 1..=ALERTS {
        files.push(fs::File::create(scratch.join(format!("eicar{number}.com")))?);
    }
    let mut files = files.into_iter();
    let times = play(&manager, "alert", |step| {
        let number = step.strip_prefix("eicar ").context("an eicar")?;
        // Content of its own is an alert of its own: the standard lets white space follow.
        let content = [eicar(), vec![b' '; number.parse()?]].concat();
        let begin = SystemTime::now().duration_since(UNIX_EPOCH)?;
        files.next().context("a file")?.write_all(&content)?;
        Ok((begin.as_secs_f64() * 1000.0).to_string())
    });
    let times: Vec<f64> =
        times.with_context(|| agent.log())?.into_iter().map(|(_, value)| value).collect();
    let what = "EICAR written to its alert on the open page, p95 of 20, ms";
    figures.add("page_alert_p95_ms", percentile(&times, 0.95), what, Some("<= 1000"));
    figures.add("page_alert_p50_ms", median(&times), "the same, half of them", None);
    Ok(())
}

/// Clicks from the overview to an isolated host, counted as they are made; in a lab's network.
fn isolate(figures: &mut Figures) -> Result<()> {
    let lab = Lab::new()?;
    let scratch = Scratch::tmpfs(16 << 20)?;
    let setup = Setup::protect([scratch.path()]).tables("[sensor]\nenabled = false");
    let agent = setup.on_host_of(&lab, "").start()?;
    let manager = Manager::outside_by_https(&lab)?;
    manager.person(USER, "operator", PASSWORD)?;
    manager.enroll(&agent, &[])?;
    fs::write(scratch.join("eicar.com"), eicar())?;
    let found = play(&manager, "isolate", nothing).with_context(|| agent.log())?;
    for (_, clicks) in found {
        let what = "from the overview to the newest alert's isolated host";
        figures.add("clicks_to_isolate", clicks, what, Some("<= 4"));
    }
    Ok(())
}

/// A long list scrolled to its end, walked by keys, filtered, and changed under the reader's eyes.
fn scroll(figures: &mut Figures) -> Result<()> {
    let mut manager = Manager::start()?;
    manager.person(USER, "operator", PASSWORD)?;
    manager.kill()?;
    fill(&manager.folder().join("manager.db"), FILLED, HOSTS)?;
    manager.run()?;
    let found = play(&manager, "scroll", |step| match step {
        "size" => Ok(json!({ "alerts": FILLED, "hosts": HOSTS }).to_string()),
        "burst" => {
            let page = manager.get(&format!("/api/v1/alerts?from_ms=0&limit={BURST}"))?;
            for alert in page["items"].as_array().into_iter().flatten() {
                let path = format!("/api/v1/alerts/{}", alert["id"].as_str().context("an id")?);
                manager.ask("PATCH", &path, &json!({ "assignee": "somebody" }))?;
            }
            Ok(Value::Null.to_string())
        }
        other => nothing(other),
    })?;
    let longest = found.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let what = "longest task with 100,000 alerts and 10,000 hosts; 0: none over 50 ms";
    figures.add("long_task_ms", longest, what, Some("<= 50"));
    for (name, value) in found {
        figures.add(&format!("long_task_{name}_ms"), value, "of it", None);
    }
    Ok(())
}
