//! The audit log: append-only, and what was done to it behind the manager's back shows.

use holdfast_manager::app::{AuditFault, NewToken, audit_verify};
use holdfast_manager::store::Store;

use crate::world::{On, World, on_both};

/// Runs a statement as somebody does who owns the database.
async fn tamper(world: &World, sql: &str) {
    let (off, on) = match world.on() {
        On::Sqlite => ("DROP TRIGGER audit_update; DROP TRIGGER audit_delete;", ""),
        On::Postgres => {
            ("ALTER TABLE audit DISABLE TRIGGER ALL;", "ALTER TABLE audit ENABLE TRIGGER ALL;")
        }
    };
    world.raw(&format!("{off} {sql}; {on}")).await.expect("tamper");
}

async fn verify(world: &World) -> Option<AuditFault> {
    let store = Store::open(world.settings.place.clone()).await.expect("open");
    let verdict = audit_verify(&store, &world.data_dir()).await.expect("verify");
    store.close().await;
    verdict.fault
}

async fn rows(world: &World, count: usize) {
    for _ in 0..count {
        let new = NewToken { group: "g".to_owned(), note: String::new(), uses: 1, valid_s: 60 };
        world.app.token_create(new, "ann").await.expect("token");
    }
}

on_both! {
    async fn a_log_that_nobody_touched_is_whole(world: World) {
        assert_eq!(verify(&world).await, None);
        rows(&world, 5).await;
        assert_eq!(verify(&world).await, None);
        let listed = world.app.audit_list(None, (0, i64::MAX), 10, "").await.expect("list");
        assert_eq!(listed.len(), 5);
        assert_eq!(listed[0].entry.actor, "ann");
        // By a part of who, what or to what; nothing in it is a pattern.
        for (text, count) in [("ANN", 5), ("token.cre", 5), ("%", 0), ("_", 0), ("bob", 0)] {
            let listed = world.app.audit_list(None, (0, i64::MAX), 10, text).await.expect("list");
            assert_eq!(listed.len(), count, "{text}");
        }
    }

    async fn the_database_itself_refuses_changes_of_the_log(world: World) {
        rows(&world, 2).await;
        assert!(world.raw("UPDATE audit SET actor = 'bob'").await.is_err());
        assert!(world.raw("DELETE FROM audit").await.is_err());
        assert_eq!(verify(&world).await, None);
    }

    async fn a_changed_row_shows(world: World) {
        rows(&world, 5).await;
        tamper(&world, "UPDATE audit SET actor = 'bob' WHERE number = 3").await;
        assert_eq!(verify(&world).await, Some(AuditFault::Changed(3)));
    }

    async fn a_removed_row_shows(world: World) {
        rows(&world, 5).await;
        tamper(&world, "DELETE FROM audit WHERE number = 3").await;
        assert_eq!(verify(&world).await, Some(AuditFault::Missing(3)));
    }

    async fn rows_cut_off_at_the_end_show(world: World) {
        rows(&world, 5).await;
        tamper(&world, "DELETE FROM audit WHERE number > 3").await;
        assert_eq!(verify(&world).await, Some(AuditFault::Cut(5)));
    }

    async fn rows_that_were_moved_show(world: World) {
        rows(&world, 5).await;
        tamper(&world, "DELETE FROM audit WHERE number = 1; UPDATE audit SET number = number - 1")
            .await;
        assert_eq!(verify(&world).await, Some(AuditFault::Changed(1)));
    }

    async fn appends_at_once_stay_one_chain(world: World) {
        let mut all = Vec::new();
        for _ in 0..10 {
            let app = world.app.clone();
            all.push(tokio::spawn(async move {
                for _ in 0..5 {
                    let group = "g".to_owned();
                    let new = NewToken { group, note: String::new(), uses: 1, valid_s: 60 };
                    app.token_create(new, "ann").await.expect("token");
                }
            }));
        }
        for one in all {
            one.await.expect("all");
        }
        assert_eq!(verify(&world).await, None);
    }
}
