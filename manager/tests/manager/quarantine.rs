//! What lies in the hosts' quarantines, whatever order its news comes in.

use holdfast_common::event::{Event, EventBody, QuarantineAction};
use holdfast_common::verdict::{Disposition, Engine};
use holdfast_manager::app::{App, AppError, now_ms};
use holdfast_manager::store::quarantine::{ItemFilter, QuarantineItem};
use uuid::Uuid;

use crate::world::{World, event, malware, on_both};

/// A detection whose file is this item.
fn sealed(item: Uuid, path: &str) -> Event {
    let mut event = malware(path, "aa11");
    let EventBody::Malware(found) = &mut event.body else { panic!("malware") };
    found.quarantine_id = Some(item);
    found.file.size = 68;
    event
}

fn done(item: Uuid, action: &str, time_ms: i64) -> Event {
    let (action, path, sha256) = (action.to_owned(), "/tmp/x".to_owned(), "aa11".to_owned());
    let body = EventBody::Quarantine(QuarantineAction { item, action, path, sha256 });
    Event { time_ms, ..event(body) }
}

async fn all(app: &App, filter: ItemFilter) -> Vec<QuarantineItem> {
    app.item_list(&ItemFilter { limit: 100, ..filter }).await.expect("list")
}

on_both! {
    async fn news_of_an_item_leads_to_the_same_in_every_order(world: World) {
        let app = &world.app;
        let host = world.host("web1").await;
        let now = now_ms();
        let news = |item| [
            sealed(item, "/tmp/x"),
            done(item, "exported", now + 10),
            done(item, "restored", now + 20),
            done(item, "deleted", now + 30),
        ];
        // Twice some of them, since what is not acknowledged is sent again.
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
            let item = Uuid::now_v7();
            let all_news = news(item);
            for place in order {
                for _ in 0..2 {
                    world.store(host, &[all_news[place].clone()]).await;
                }
            }
            let found = app.item_get(host, item).await.expect("item");
            assert_eq!((found.state.as_str(), found.state_ms), ("deleted", now + 30), "{order:?}");
            assert_eq!((found.size, found.signature.as_str()), (68, "EICAR"), "{order:?}");
            assert_eq!((found.path.as_str(), found.sha256.as_str()), ("/tmp/x", "aa11"));
            let event = app.event_get(found.event.expect("event")).await.expect("event");
            assert_eq!(event.kind, "malware");
        }
        assert_eq!(all(app, ItemFilter::default()).await.len(), 4);
    }

    async fn the_list_is_by_host_state_and_content_and_of_what_was_sealed_alone(world: World) {
        let app = &world.app;
        let (one, two) = (world.host("web1").await, world.host("web2").await);
        let (held, gone) = (Uuid::now_v7(), Uuid::now_v7());
        world.store(one, &[sealed(held, "/tmp/held"), sealed(gone, "/tmp/gone")]).await;
        world.store(one, &[done(gone, "restored_and_allowed", now_ms())]).await;
        // The same item id at another host is another item.
        world.store(two, &[sealed(held, "/tmp/other")]).await;
        let mut blocked = sealed(Uuid::now_v7(), "/tmp/blocked");
        let mut marker = sealed(Uuid::now_v7(), "/tmp/marker");
        let odd = done(Uuid::now_v7(), "eaten", now_ms());
        if let EventBody::Malware(found) = &mut blocked.body {
            found.disposition = Disposition::Blocked;
        }
        if let EventBody::Malware(found) = &mut marker.body {
            found.signature.engine = Engine::SelfProof;
        }
        world.store(one, &[blocked, marker, odd]).await;
        let paths = |items: Vec<QuarantineItem>| {
            items.into_iter().map(|item| item.path).collect::<Vec<_>>()
        };
        let state = |state: &str| ItemFilter {
            state: Some(state.to_owned()), ..ItemFilter::default()
        };
        assert_eq!(all(app, ItemFilter::default()).await.len(), 3);
        assert_eq!(paths(all(app, state("held")).await), ["/tmp/other", "/tmp/held"]);
        assert_eq!(paths(all(app, state("restored_and_allowed")).await), ["/tmp/x"]);
        let of_two = ItemFilter { host: Some(two), ..ItemFilter::default() };
        assert_eq!(paths(all(app, of_two).await), ["/tmp/other"]);
        let nothing = ItemFilter { sha256: Some("bb".to_owned()), ..ItemFilter::default() };
        assert!(all(app, nothing).await.is_empty());
        assert!(matches!(app.item_list(&state("lost")).await, Err(AppError::Invalid(_))));
        assert!(matches!(app.item_get(two, gone).await, Err(AppError::NotFound(_))));
        // What left is forgotten with its events; what is held stays for as long as it is.
        app.retention_round(now_ms() + 31 * 86_400_000).await.expect("round");
        assert_eq!(all(app, ItemFilter::default()).await.len(), 2);
    }
}
