//! Hosts: enrollment, admission, copies; health that cannot lie.

use holdfast_common::link::CapabilityState::{Ok as Fine, Red};
use holdfast_manager::app::{AdmitError, App, EnrollError, NewToken, SILENCE, now_ms};

use crate::alerts::alerts;
use crate::world::{World, facts, heartbeat, on_both};

async fn token(app: &App, uses: u32, valid_s: u64) -> (uuid::Uuid, String) {
    let new = NewToken { group: "web".to_owned(), note: String::new(), uses, valid_s };
    let (token, secret) = app.token_create(new, "ann").await.expect("token");
    (token.id, secret)
}

on_both! {
    async fn a_token_enrolls_as_many_hosts_as_it_says(world: World) {
        let app = &world.app;
        let (_, secret) = token(app, 2, 60).await;
        let facts = facts("web1");
        let wrong = secret.replace(&secret[4..6], "zz");
        for bad in ["", "hfe_", &wrong, &"x".repeat(100_000)] {
            assert!(matches!(app.host_enroll(bad, &facts).await, Err(EnrollError::Token)));
        }
        let one = app.host_enroll(&secret, &facts).await.expect("first");
        let two = app.host_enroll(&secret, &facts).await.expect("second");
        assert_ne!(one, two);
        assert!(matches!(app.host_enroll(&secret, &facts).await, Err(EnrollError::Token)));
        assert_eq!(app.host_get(one).await.expect("host").group, "web");
        let (id, revoked) = token(app, 2, 60).await;
        app.token_revoke(id, "ann").await.expect("revoke");
        assert!(matches!(app.host_enroll(&revoked, &facts).await, Err(EnrollError::Token)));
        let listed = app.token_list().await.expect("list");
        assert!(!format!("{listed:?}").contains(&secret[10..]), "a secret is kept");
    }

    async fn one_use_is_taken_once_by_hosts_that_come_together(world: World) {
        let (_, secret) = token(&world.app, 5, 60).await;
        let mut hosts = Vec::new();
        for number in 0..20 {
            let (app, secret) = (world.app.clone(), secret.clone());
            hosts.push(tokio::spawn(async move {
                app.host_enroll(&secret, &facts(&format!("h{number}"))).await.is_ok()
            }));
        }
        let mut enrolled = 0;
        for host in hosts {
            enrolled += usize::from(host.await.expect("host"));
        }
        assert_eq!(enrolled, 5);
    }

    async fn facts_have_bounds(world: World) {
        let (_, secret) = token(&world.app, 1, 60).await;
        let mut long = facts("web1");
        long.kernel = "x".repeat(501);
        let refused = world.app.host_enroll(&secret, &long).await;
        assert!(matches!(refused, Err(EnrollError::Facts(_))));
        long = facts("");
        let refused = world.app.host_enroll(&secret, &long).await;
        assert!(matches!(refused, Err(EnrollError::Facts(_))));
        world.app.host_enroll(&secret, &facts("web1")).await.expect("no use was taken");
    }

    async fn a_copy_of_a_host_is_refused_shown_and_an_alert(world: World) {
        let admitted = world.connected("web1").await;
        let app = &world.app;
        for generation in [1, 0] {
            let copy = app.host_admit("web1", &facts("copy"), generation).await;
            assert!(matches!(copy, Err(AdmitError::Cloned)));
        }
        let host = app.host_get(admitted.host).await.expect("host");
        assert!(host.cloned_ms.is_some());
        assert_eq!(host.name, "web1", "a copy changes nothing");
        let alert = alerts(app).await.remove(0);
        assert_eq!((alert.model.as_str(), alert.count), ("cloned", 2));
        let next = app.host_admit("web1", &facts("web1"), 2).await.expect("the next start");
        assert_ne!(next.session, admitted.session);
        // The old stream's end changes nothing any more.
        app.host_left(admitted).await;
        assert_eq!(app.host_get(next.host).await.expect("host").session, Some(next.session));
        app.host_left(next).await;
        assert_eq!(app.host_get(next.host).await.expect("host").session, None);
    }

    async fn a_revoked_or_unknown_certificate_is_refused(world: World) {
        let admitted = world.connected("web1").await;
        let app = &world.app;
        let unknown = app.host_admit("other", &facts("x"), 1).await;
        assert!(matches!(unknown, Err(AdmitError::Unknown)));
        assert_eq!(app.certificate_host("web1").await.expect("stands"), admitted.host);
        app.certificate_issued(admitted.host, "old", now_ms() - 1).await.expect("certificate");
        let ended = app.host_admit("old", &facts("web1"), 9).await;
        assert!(matches!(ended, Err(AdmitError::Revoked)));
        app.host_revoke(admitted.host, "ann", "stolen").await.expect("revoke");
        let revoked = app.host_admit("web1", &facts("web1"), 2).await;
        assert!(matches!(revoked, Err(AdmitError::Revoked)));
        assert!(matches!(app.certificate_host("web1").await, Err(AdmitError::Revoked)));
        assert!(app.host_revoke(admitted.host, "ann", "again").await.is_err());
    }

    async fn a_blind_host_is_red_by_name_at_once_and_green_again_with_evidence(world: World) {
        let admitted = world.connected("web1").await;
        let app = &world.app;
        let beat = heartbeat(&[("on access: /", Fine), ("sensor", Fine)]);
        app.heartbeat_store(admitted, beat).await.expect("heartbeat");
        let host = app.host_get(admitted.host).await.expect("host");
        assert_eq!((host.health.as_str(), host.reasons.as_str()), ("green", "[]"));
        for _ in 0..3 {
            let beat = heartbeat(&[("on access: /", Red), ("sensor", Fine)]);
            app.heartbeat_store(admitted, beat).await.expect("heartbeat");
        }
        let host = app.host_get(admitted.host).await.expect("host");
        assert_eq!(host.health, "red");
        assert!(host.reasons.contains("on access: /"), "{}", host.reasons);
        let alert = alerts(app).await.remove(0);
        assert_eq!((alert.kind.as_str(), alert.model.as_str()), ("health", "on access: /"));
        assert_eq!(alert.count, 1, "one alert for one time of being blind");
        let beat = heartbeat(&[("on access: /", Fine)]);
        app.heartbeat_store(admitted, beat).await.expect("heartbeat");
        assert_eq!(app.host_get(admitted.host).await.expect("host").health, "green");
        assert!(alerts(app).await[0].cleared_ms.is_some());
        app.heartbeat_store(admitted, heartbeat(&[])).await.expect("heartbeat");
        assert!(app.host_get(admitted.host).await.expect("host").reasons.contains("blind"));
    }

    async fn a_silent_host_is_red_within_a_minute_and_that_is_an_alert(world: World) {
        let admitted = world.connected("web1").await;
        let app = &world.app;
        let beat = heartbeat(&[("sensor", Fine)]);
        app.heartbeat_store(admitted, beat).await.expect("heartbeat");
        let silence = i64::try_from(SILENCE.as_millis()).expect("ms");
        assert!(silence <= 55_000, "with five seconds between two looks that is a minute");
        app.silent_look(now_ms() + silence - 2000).await.expect("look");
        assert_eq!(app.host_get(admitted.host).await.expect("host").health, "green");
        for _ in 0..2 {
            app.silent_look(now_ms() + silence + 1).await.expect("look");
        }
        let host = app.host_get(admitted.host).await.expect("host");
        assert_eq!(host.health, "red");
        assert!(host.reasons.contains("silent"), "{}", host.reasons);
        let found = alerts(app).await;
        assert_eq!((found.len(), found[0].model.as_str(), found[0].count), (1, "silent", 1));
        let beat = heartbeat(&[("sensor", Fine)]);
        app.heartbeat_store(admitted, beat).await.expect("heartbeat");
        assert_eq!(app.host_get(admitted.host).await.expect("host").health, "green");
    }

    async fn what_was_wrong_before_the_silence_is_not_over_by_it(world: World) {
        let admitted = world.connected("web1").await;
        let app = &world.app;
        let beat = heartbeat(&[("sensor", Red), ("models", Fine)]);
        app.heartbeat_store(admitted, beat).await.expect("heartbeat");
        app.silent_look(now_ms() + 3_600_000).await.expect("look");
        let host = app.host_get(admitted.host).await.expect("host");
        assert!(host.reasons.contains("silent") && host.reasons.contains("sensor"));
        assert!(alerts(app).await.iter().all(|alert| alert.cleared_ms.is_none()));
    }

    async fn a_stream_that_was_replaced_speaks_for_its_host_no_more(world: World) {
        let old = world.connected("web1").await;
        let app = &world.app;
        app.host_admit("web1", &facts("web1"), 2).await.expect("admit");
        app.heartbeat_store(old, heartbeat(&[("sensor", Fine)])).await.expect("dropped");
        assert_eq!(app.host_get(old.host).await.expect("host").health, "new");
        assert_eq!(app.counters().stale_messages.get(), 1);
    }
}
