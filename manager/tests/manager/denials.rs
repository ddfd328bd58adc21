//! What is denied on many hosts at once, on both databases: who is given what, and how hosts stand.

use std::time::Duration;

use holdfast_common::denial::{
    DenialKind, DenialRefusal, DenialState, FleetDenials, MOST_PATTERNS,
};
use holdfast_common::link::CapabilityState::Ok as Fine;
use holdfast_manager::app::{Admitted, App, AppError, NewDenial};
use holdfast_manager::store::denials::Denial;

use crate::world::{On, World, heartbeat, on_both};

fn path(value: &str, group: Option<&str>) -> NewDenial {
    let (value, group) = (value.to_owned(), group.map(str::to_owned));
    NewDenial {
        kind: DenialKind::Path,
        value,
        group,
        reason: "a test".to_owned(),
        duration_s: None,
    }
}

impl World {
    async fn deny(&self, new: NewDenial) -> Denial {
        self.app.denial_add(new, "anna").await.expect("denied").0
    }

    async fn says(&self, host: Admitted, denials: DenialState) {
        let mut heartbeat = heartbeat(&[("on access: /", Fine)]);
        heartbeat.status.denials = denials;
        self.app.heartbeat_store(host, heartbeat).await.expect("heartbeat");
    }

    async fn denied_on(&self, host: Admitted) -> Option<FleetDenials> {
        self.app.denials_for(host.host).await.expect("list")
    }

    /// The host puts in force what it is given.
    async fn denies(&self, host: Admitted) -> Vec<String> {
        let list = self.denied_on(host).await.expect("it is given something");
        self.says(host, DenialState { through: list.through, ..DenialState::default() }).await;
        assert_eq!(self.denied_on(host).await, None, "once");
        list.denials.into_iter().map(|one| one.value).collect()
    }

    async fn reach(&self, denial: &Denial) -> (i64, i64, i64) {
        let one = self.app.denial_get(denial.id).await.expect("denial");
        let reach = self.app.denial_reach(&one).await.expect("reach");
        (reach.hosts, reach.applied, reach.refused)
    }
}

on_both! {
    async fn an_order_is_for_all_that_are_there_or_come_and_each_says_how_it_stands(world: World) {
        let early = world.connected("early").await;
        let first = world.deny(path("/srv/x", None)).await;
        assert_eq!(world.denied_on(early).await, None, "it has not said what it has");
        world.says(early, DenialState::default()).await;
        assert_eq!(world.reach(&first).await, (1, 0, 0));
        assert_eq!(world.denies(early).await, ["/srv/x"]);
        assert_eq!(world.reach(&first).await, (1, 1, 0));
        let (again, new) = world.app.denial_add(path("/srv/x", None), "bob").await.expect("again");
        assert!(!new && again == first, "the same order");
        let hash = NewDenial { kind: DenialKind::Hash, value: "AB".repeat(32), ..path("", Some("test")) };
        let hash = world.deny(hash).await;
        let others = world.deny(path("/srv/y", Some("others"))).await;
        assert!(first.number < hash.number && hash.number < others.number);
        assert_eq!(world.denies(early).await, ["/srv/x".to_owned(), "ab".repeat(32)]);
        assert_eq!(world.reach(&others).await, (0, 0, 0));
        // One that comes later, and cannot do all of it.
        let late = world.connected("late").await;
        world.says(late, DenialState::default()).await;
        let list = world.denied_on(late).await.expect("all of it");
        assert_eq!(list.denials.len(), 2);
        assert_eq!(list.denials[0].why, "anna: a test");
        let refusal = DenialRefusal { id: hash.id, why: "it runs on it".to_owned() };
        let state =
            DenialState { through: list.through, refused: vec![refusal], ..DenialState::default() };
        world.says(late, state).await;
        assert_eq!(world.reach(&first).await, (2, 2, 0));
        assert_eq!(world.reach(&hash).await, (2, 1, 1));
        let (_, hosts) = world.app.denial_hosts(hash.id, None, 10).await.expect("hosts");
        assert_eq!(hosts.len(), 2);
        assert!(hosts[1].refused.contains("it runs on it") && hosts[1].name == "late");
        // Taken back: in force until a host says that it is not.
        world.app.denial_remove(first.id, "over", "anna").await.expect("removed");
        let twice = world.app.denial_remove(first.id, "over", "anna").await.expect_err("twice");
        assert!(matches!(twice, AppError::Conflict(_)), "{twice}");
        assert_eq!(world.reach(&first).await, (2, 0, 0));
        assert_eq!(world.denies(early).await, ["ab".repeat(32)]);
        assert_eq!(world.reach(&first).await, (2, 1, 0));
        let standing = world.app.denial_list(false, None, 10).await.expect("list");
        assert_eq!(standing.len(), 2);
        let removed = world.app.denial_list(true, None, 10).await.expect("list");
        assert_eq!(removed[0].0.removed_why, "over");
    }

    async fn an_order_ends_at_its_time_and_what_is_over_the_bounds_is_refused(world: World) {
        let host = world.connected("web1").await;
        world.says(host, DenialState::default()).await;
        let hour = NewDenial { duration_s: Some(3600), ..path("/srv/x", None) };
        let brief = world.deny(hour.clone()).await;
        let until = brief.until_ms.expect("an end");
        let shorter = NewDenial { duration_s: Some(60), ..hour.clone() };
        assert!(!world.app.denial_add(shorter, "anna").await.expect("stands").1);
        let (lasting, new) = world.app.denial_add(path("/srv/x", None), "anna").await.expect("two");
        assert!(new && lasting.until_ms.is_none(), "one that ends is no reason not to take this");
        let list = world.denied_on(host).await.expect("list");
        assert_eq!(list.denials[0].until_ms, Some(until), "the host ends it by itself");
        world.app.denials_look(until - 1).await.expect("look");
        assert_eq!(world.app.denial_list(false, None, 10).await.expect("list").len(), 2);
        world.app.denials_look(until).await.expect("look");
        world.app.denials_look(until).await.expect("again");
        let standing = world.app.denial_list(false, None, 10).await.expect("list");
        assert_eq!(standing.len(), 1);
        let over = world.app.denial_get(brief.id).await.expect("it");
        assert_eq!(over.removed_why, "its time has come");
        assert!(over.change() > lasting.number, "hosts are told");
        for bad in [Some(0), Some(u64::MAX)] {
            let refused = NewDenial { duration_s: bad, ..path("/srv/y", None) };
            assert!(world.app.denial_add(refused, "anna").await.is_err());
        }
        for number in 0..MOST_PATTERNS {
            world.deny(path(&format!("/srv/{number}/*"), None)).await;
        }
        let full = world.app.denial_add(path("/srv/more/*", None), "anna").await.expect_err("full");
        assert!(matches!(&full, AppError::Conflict(why) if why.contains("take some back")), "{full}");
        world.deny(path("/srv/more", None)).await;
    }

    async fn what_no_host_can_run_without_and_what_is_no_order_is_refused(world: World) {
        for bad in ["/**", "/usr/bin/bash", "relative", "/", "/a/../b"] {
            let refused = world.app.denial_add(path(bad, None), "anna").await.expect_err(bad);
            assert!(matches!(refused, AppError::Invalid(_)), "{bad}: {refused}");
        }
        let unreasoned = NewDenial { reason: " ".to_owned(), ..path("/srv/x", None) };
        assert!(world.app.denial_add(unreasoned, "anna").await.is_err());
        assert!(world.app.denial_add(path("/srv/x", Some("")), "anna").await.is_err());
        assert!(world.app.denial_list(false, None, 10).await.expect("list").is_empty());
    }
}

#[test]
fn an_order_at_one_manager_wakes_an_agents_stream_at_another() {
    crate::world::run(On::Postgres, |world| async move {
        let host = world.connected("web1").await;
        world.says(host, DenialState::default()).await;
        let other = App::start(world.settings.clone()).await.expect("second manager");
        let mut signal = other.task_signal(host.host);
        let denial = world.deny(path("/srv/x", None)).await;
        let given = async {
            loop {
                assert!(signal.changed().await, "the manager ends");
                let list = other.denials_for(host.host).await.expect("list");
                if list.is_some_and(|list| list.through == denial.number) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), given).await.expect("heard");
        other.stop().await;
    });
}
