//! Backups: as of one moment, whole or refused, never over something.

use std::fs;

use holdfast_manager::app::App;
use holdfast_manager::backup::{backup, restore};
use holdfast_manager::store::{Place, Store};
use tempfile::TempDir;

use crate::cluster;
use crate::world::{On, World, exec, on_both, settings};

on_both! {
    async fn what_was_backed_up_is_there_after_restoring_elsewhere(world: World) {
        let host = world.host("web1").await;
        let one = exec(&["ls"]);
        world.store(host, std::slice::from_ref(&one)).await;
        fs::write(world.data_dir().join("authority.key"), "key").expect("key");
        let folder = TempDir::new().expect("folder");
        let to = folder.path().join("backup");
        let store = Store::open(world.settings.place.clone()).await.expect("open");
        backup(&store, &world.data_dir(), &to).await.expect("backup");
        world.store(host, &[exec(&["later"])]).await;
        assert!(backup(&store, &world.data_dir(), &to).await.is_err(), "over a backup");
        store.close().await;

        let data_dir = folder.path().join("elsewhere");
        let place = match world.on() {
            On::Sqlite => Place::File(data_dir.join("manager.db")),
            On::Postgres => Place::Server(cluster::database()),
        };
        restore(&place, &data_dir, &to).expect("restore");
        assert_eq!(fs::read_to_string(data_dir.join("authority.key")).expect("key"), "key");
        assert!(restore(&place, &data_dir, &to).is_err(), "over what is there");
        let app = App::start(settings(place, data_dir)).await.expect("start");
        let query = holdfast_manager::query::parse("cmdline:ls OR cmdline:later").expect("query");
        let page = app.event_search(query, (0, i64::MAX), None, 10).await.expect("search");
        assert_eq!(page.events.iter().map(|e| e.id).collect::<Vec<_>>(), [one.id]);
        app.stop().await;
    }

    async fn a_backup_with_one_changed_byte_is_refused(world: World) {
        let folder = TempDir::new().expect("folder");
        let to = folder.path().join("backup");
        fs::write(world.data_dir().join("authority.key"), "key").expect("key");
        let store = Store::open(world.settings.place.clone()).await.expect("open");
        backup(&store, &world.data_dir(), &to).await.expect("backup");
        store.close().await;
        fs::write(to.join("data/authority.key"), "kez").expect("change");
        let data_dir = folder.path().join("elsewhere");
        let place = Place::File(data_dir.join("manager.db"));
        let refused = restore(&place, &data_dir, &to).expect_err("refused").to_string();
        assert!(refused.contains("authority.key"), "{refused}");
        assert!(!data_dir.exists());
    }
}
