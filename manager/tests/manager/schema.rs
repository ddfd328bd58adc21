//! A database that a newer manager has used: refused, and left as it is.

use holdfast_manager::store::{SCHEMA, Store};
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, Row};

use crate::world::{World, exec, on_both};

on_both! {
    async fn an_older_manager_refuses_a_newer_database_and_changes_nothing(world: World) {
        let host = world.host("web1").await;
        world.store(host, &[exec(&["ls"])]).await;
        let pool = beside(&world).await;
        let newer = SCHEMA + 1;
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES ($1, 'newer', $2, $3, 0)",
        )
        .bind(newer)
        .bind(true)
        .bind(vec![7_u8; 48])
        .execute(&pool)
        .await
        .expect("a newer manager");
        sqlx::query("CREATE TABLE newer (number BIGINT)").execute(&pool).await.expect("table");
        let before = content(&pool).await;
        let refused = Store::open(world.settings.place.clone()).await.expect_err("refused");
        let said = refused.to_string();
        assert!(said.contains(&format!("schema {newer}, this manager knows {SCHEMA}")), "{said}");
        assert!(said.contains("start the newer manager"), "{said}");
        assert_eq!(content(&pool).await, before);
        pool.close().await;
    }

    async fn a_database_from_before_the_hosts_index_went_keeps_its_events(world: World) {
        let host = world.host("web1").await;
        let event = exec(&["ls"]);
        world.store(host, std::slice::from_ref(&event)).await;
        let pool = beside(&world).await;
        // As version 8 left it.
        for sql in [
            "CREATE INDEX events_host ON events (host, number)",
            "DELETE FROM _sqlx_migrations WHERE version = 9",
        ] {
            sqlx::query(sql).execute(&pool).await.expect("go back");
        }
        let store = Store::open(world.settings.place.clone()).await.expect("migrate");
        assert_eq!(world.find("host:web1").await, [event.id]);
        // By a connection that has not seen the index: SQLite refuses by what it remembers.
        let again = "CREATE INDEX events_host ON events (host, number)";
        let fresh = beside(&world).await;
        sqlx::query(again).execute(&fresh).await.expect("it is not there any more");
        fresh.close().await;
        store.close().await;
        pool.close().await;
    }
}

/// A connection of the test's own.
async fn beside(world: &World) -> AnyPool {
    let url = match &world.settings.place {
        holdfast_manager::store::Place::File(path) => format!("sqlite://{}", path.display()),
        holdfast_manager::store::Place::Server(url) => url.clone(),
    };
    AnyPoolOptions::new().max_connections(1).connect(&url).await.expect("connect")
}

/// Rows of what a migration would touch.
async fn content(pool: &AnyPool) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in ["_sqlx_migrations", "hosts", "certificates", "events", "audit", "newer"] {
        let sql = format!("SELECT COUNT(*) AS n FROM {table}");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await.expect("count");
        counts.push(row.try_get("n").expect("a number"));
    }
    counts
}
