//! Self-protection on this host's kernel: it denies, or the doctor says that it cannot and why.
//! What it denies is proven in guests, whose kernels can (src/scenarios/guarding.rs).

use holdfast_tests::agent::{PATIENCE, Setup};
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{require_root, until};
use serde_json::Value;

#[test]
fn the_doctor_says_whether_the_kernel_denies_and_why_not() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("tmpfs");
    let mut agent = Setup::protect([scratch.path()])
        .tables("[self_protection]\nenabled = true")
        .start()
        .expect("agent");
    let line = until(PATIENCE, || {
        let output = agent.cli(&["--json", "doctor"]).ok()?;
        let lines = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
        let line = lines
            .flatten()
            .find(|line| line["check"] == "self-protection: denied by the kernel (BPF LSM)")?;
        (line["evidence"] != "still loading").then_some(line)
    })
    .expect("a line of the doctor");
    let evidence = line["evidence"].as_str().expect("evidence");
    if line["ok"] == true {
        assert!(evidence.contains("hooks run"), "{evidence}");
    } else {
        assert!(evidence.starts_with("not available"), "{evidence}");
        assert!(line["advice"].as_str().expect("advice").contains("CONFIG_BPF_LSM"), "{line}");
        // What this kernel lacks is no fault of the host.
        let status = agent.json(&["status"]).expect("status");
        let problems = status[0]["problems"].to_string();
        assert!(!problems.contains("self-protection"), "{problems}");
    }
    println!("{evidence}");
    assert!(agent.stop().expect("stop").success());
}

#[test]
fn the_parent_that_started_the_agent_kills_it_and_a_new_one_starts() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("tmpfs");
    let mut agent = Setup::protect([scratch.path()])
        .tables("[self_protection]\nenabled = true")
        .start()
        .expect("agent");
    agent.kill().expect("kill");
    agent.start().expect("start again");
    assert!(agent.stop().expect("stop").success());
}
