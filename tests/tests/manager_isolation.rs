//! Isolation ordered by a manager: the host is cut off, the manager still reached, and told so.
//!
//! In a lab's network: nothing of this machine's own is touched.

use holdfast_tests::agent::{PATIENCE, Setup};
use holdfast_tests::lab::Lab;
use holdfast_tests::manager::Manager;
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{require_root, until};
use serde_json::json;

#[test]
fn an_isolated_host_stays_reachable_for_its_manager_and_for_nobody_else() {
    require_root();
    let lab = Lab::new().expect("lab");
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let quiet = "[sensor]\nenabled = false";
    let setup = Setup::protect([scratch.path()]).tables(quiet);
    // The config names no endpoint: the manager is one by itself.
    let mut agent = setup.on_host_of(&lab, "").start().expect("agent");
    let manager = Manager::outside(&lab).expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    // Nobody listens there: who gets that far is refused by that side.
    let reached = || {
        let mut call = lab.command("host", "timeout");
        call.args(["2", "bash", "-c", "exec 3<>/dev/tcp/10.77.0.3/9"]);
        let said = call.output().expect("a call").stderr;
        String::from_utf8_lossy(&said).contains("Connection refused")
    };
    assert!(reached(), "the network works");
    let filed = std::time::Instant::now();
    let task = manager.file(&host, &json!({ "action": "isolate", "duration_s": null }));
    let ended = manager.ended(&task.expect("filed")).expect("ended");
    let took = filed.elapsed();
    assert_eq!(ended["stage"], "verified", "{ended}\n{}", agent.log());
    eprintln!("isolated and verified after {took:?}: {}", ended["observed"]);
    assert!(!reached(), "cut off");
    // It goes on: events, tasks, and after a restart.
    let list = json!({ "action": "process_list" });
    let task = manager.file(&host, &list).expect("filed");
    assert_eq!(manager.ended(&task).expect("ended")["stage"], "verified");
    agent.kill().expect("kill");
    agent.start().expect("start");
    let task = manager.file(&host, &list).expect("filed");
    assert_eq!(manager.ended(&task).expect("ended")["stage"], "verified", "{}", agent.log());
    assert!(!reached(), "still cut off");
    let task = manager.file(&host, &json!({ "action": "release" })).expect("filed");
    assert_eq!(manager.ended(&task).expect("ended")["stage"], "verified");
    assert!(until(PATIENCE, || reached().then_some(())).is_some(), "let go");
}
