//! Remote shells as the app sees them: windows, who types, recordings, a manager that began anew.

use std::fs;
use std::time::Duration;

use holdfast_common::link::wire::{ShellInput, ShellOutput};
use holdfast_common::link::{SHELL_PART, SHELL_WINDOW};
use holdfast_common::task::{Progress, Stage};
use holdfast_manager::app::{
    App, AppError, NewShell, Person, Principal, Role, ShellStream, Shown, UserEdit, Viewer,
};
use holdfast_manager::store::tasks::TaskFilter;
use uuid::Uuid;

use crate::world::{World, on_both};

async fn user(app: &App, name: &str) -> Principal {
    // There is always one.
    let _ = app.user_create("root", Role::Admin, "first password", "test").await;
    let user = app.user_create(name, Role::Operator, "first password", "test").await.expect("user");
    let edit = UserEdit { may_shell: Some(true), ..UserEdit::default() };
    app.user_edit(user.id, edit, "test").await.expect("edit");
    app.sign_in(name, "first password", "test").await.expect("sign in").principal
}

fn wanted(host: Uuid) -> NewShell {
    NewShell { host, reason: "why".to_owned(), restricted: false, size: (80, 24), alert: None }
}

fn shows(task: Uuid, data: &[u8], offset: u64) -> ShellOutput {
    ShellOutput {
        task: task.to_string(),
        data: data.to_vec().into(),
        offset,
        ..ShellOutput::default()
    }
}

async fn next(stream: &mut ShellStream) -> ShellInput {
    tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("never sent")
}

async fn nothing(stream: &mut ShellStream) -> bool {
    tokio::time::timeout(Duration::from_millis(50), stream.next()).await.is_err()
}

/// What a viewer sees next; who looks and who types is passed over.
async fn seen(viewer: &mut Viewer) -> Shown {
    loop {
        let shown = tokio::time::timeout(Duration::from_secs(10), viewer.next());
        match shown.await.expect("nothing is shown") {
            Shown::Writes(_) | Shown::People(_) | Shown::Size(..) => {}
            shown @ (Shown::Output(_) | Shown::Closed(_)) => return shown,
        }
    }
}

fn output(text: &str) -> Shown {
    Shown::Output(text.as_bytes().to_vec())
}

async fn tell(app: &App, host: Uuid, task: Uuid, stage: Stage) {
    let observed = "it ended by itself".to_owned();
    let progress = Progress { stage, time_ms: 1, observed, result: serde_json::Value::Null };
    app.task_progress(host, task, progress).await.expect("progress");
}

on_both! {
    async fn a_shell_needs_its_hosts_stream_and_says_where_that_is(world: World) {
        let app = &world.app;
        let ann = user(app, "ann").await;
        let host = world.host("web1").await;
        let refused = app.shell_open(wanted(host), &ann).await;
        assert!(matches!(refused, Err(AppError::Conflict(why)) if why.contains("not connected")));
        app.host_admit("web1", &crate::world::facts("web1"), 1).await.expect("admit");
        let refused = app.shell_open(wanted(host), &ann).await;
        let here = fs::read_to_string("/proc/sys/kernel/hostname").expect("name");
        let Err(AppError::Conflict(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains(&format!("the manager on {}", here.trim())), "{why}");
        let none = TaskFilter { until_ms: i64::MAX, limit: 10, ..TaskFilter::default() };
        assert!(app.shell_list(none).await.expect("list").is_empty());
        assert_eq!(fs::read_dir(world.data_dir().join("shells")).expect("folder").count(), 0);
    }

    async fn who_types_and_does_not_read_holds_the_terminal_up_and_who_looks_does_not(world: World) {
        let app = &world.app;
        let (ann, bob) = (user(app, "ann").await, user(app, "bob").await);
        let host = world.host("web1").await;
        let mut stream = app.shell_stream(host);
        let task = app.shell_open(wanted(host), &ann).await.expect("open").id;
        app.shell_output(host, shows(task, b"one", 0)).await.expect("taken");
        assert_eq!(next(&mut stream).await.taken, 3, "nobody types: recorded is enough");
        let mut looks = app.shell_join(task, &bob).await.expect("join");
        let mut types = app.shell_join(task, &ann).await.expect("join");
        assert_eq!(looks.next().await, Shown::Writes(false));
        assert_eq!(types.next().await, Shown::Writes(true));
        let person = |name: &str, writes| Person { name: name.to_owned(), writes };
        let people = Shown::People(vec![person("bob", false), person("ann", true)]);
        assert_eq!((looks.next().await, types.next().await), (people.clone(), people));
        assert_eq!((seen(&mut looks).await, seen(&mut types).await), (output("one"), output("one")));
        // Sent twice is shown once; another host's is refused.
        app.shell_output(host, shows(task, b"netwo", 1)).await.expect("taken");
        let other = world.host("web2").await;
        assert!(app.shell_output(other, shows(task, b"x", 6)).await.is_err());
        assert!(app.shell_output(host, shows(Uuid::now_v7(), b"x", 0)).await.is_err());
        assert_eq!(seen(&mut looks).await, output("two"));
        assert!(nothing(&mut stream).await, "who types has not read it");
        assert_eq!(seen(&mut types).await, output("two"));
        // It counts as read when more is asked for.
        let pen = types.pen();
        assert!(pen.write(b"ls\r").await);
        let input = next(&mut stream).await;
        assert_eq!((&input.data[..], input.offset), (&b"ls\r"[..], 0));
        let reading = tokio::time::timeout(Duration::from_millis(50), types.next()).await;
        assert!(reading.is_err());
        assert_eq!(next(&mut stream).await.taken, 6);
        // Who looks types nothing, and has no say in the size.
        assert!(!looks.pen().write(b"rm").await && !looks.pen().resize(1, 1));
        assert!(pen.resize(100, 40) && !pen.resize(0, 40));
        let input = next(&mut stream).await;
        assert_eq!((input.columns, input.rows, input.data.len()), (100, 40, 0));
        // The window of what is typed: the rest waits until the host has taken some.
        let flood = vec![b'x'; usize::try_from(SHELL_WINDOW).expect("size")];
        let typing = tokio::spawn({ let pen = pen.clone(); async move { pen.write(&flood).await } });
        let mut sent = 3;
        // Three bytes are on their way already: the last part does not fit.
        while sent < SHELL_WINDOW - SHELL_PART as u64 {
            let input = next(&mut stream).await;
            assert_eq!(input.offset, sent);
            sent += input.data.len() as u64;
        }
        assert!(nothing(&mut stream).await && !typing.is_finished());
        let taken = ShellOutput { taken: sent, hidden: true, ..shows(task, b"", 6) };
        app.shell_output(host, taken).await.expect("taken");
        assert!(typing.await.expect("typed"));
        // The last place types; the one before is told.
        let mut again = app.shell_join(task, &ann).await.expect("join");
        assert_eq!(again.next().await, Shown::Writes(true));
        assert_eq!(types.next().await, Shown::Writes(false));
        let people = vec![person("bob", false), person("ann", false), person("ann", true)];
        assert_eq!(types.next().await, Shown::People(people));
        assert!(!pen.write(b"x").await && again.pen().write(b"secret\r").await);
        // The end: how, the recording's name, the audit log; once.
        let last = ShellOutput { closed: true, why: "over".to_owned(), ..shows(task, b"", 6) };
        app.shell_output(host, last).await.expect("taken");
        assert_eq!(seen(&mut looks).await, Shown::Closed("over".to_owned()));
        tell(app, host, task, Stage::Delivered).await;
        tell(app, host, task, Stage::Verified).await;
        let refused = app.shell_join(task, &ann).await;
        assert!(matches!(refused, Err(AppError::Conflict(why)) if why.contains("has ended")));
        let file = world.data_dir().join(format!("shells/{task}.cast"));
        let text = fs::read_to_string(file).expect("recording");
        assert!(text.contains("*******") && !text.contains("secret"), "{text}");
        assert!(text.contains("\"two\"") && text.contains("100x40") && !text.contains("rm"));
        let rows = app.audit_list(None, (0, i64::MAX), 100, "").await.expect("audit");
        let closed = rows.iter().filter(|row| row.entry.action == "shell.close");
        assert_eq!(closed.count(), 1);
        let all = TaskFilter { until_ms: i64::MAX, limit: 10, ..TaskFilter::default() };
        let listed = app.shell_list(all).await.expect("list");
        assert_eq!((listed[0].0.id, listed[0].1), (task, Some(text.len() as u64)));
        let (_, size) = app.shell_recording(task, "ann").await.expect("recording");
        assert_eq!(size, text.len() as u64);
    }

    async fn a_manager_that_began_anew_goes_on_with_a_recording(world: World) {
        let ann = user(&world.app, "ann").await;
        let host = world.host("web1").await;
        let stream = world.app.shell_stream(host);
        let task = world.app.shell_open(wanted(host), &ann).await.expect("open").id;
        world.app.shell_output(host, shows(task, b"before", 0)).await.expect("taken");
        drop(stream);
        world.app.stop().await;
        let app = App::start(world.settings.clone()).await.expect("again");
        let mut stream = app.shell_stream(host);
        // The host sends again what was not confirmed.
        app.shell_output(host, shows(task, b"fore", 2)).await.expect("taken");
        assert_eq!(next(&mut stream).await.taken, 6);
        let mut viewer = app.shell_join(task, &ann).await.expect("join");
        let mut all = Vec::new();
        while !all.ends_with(b"fore") || all.len() < 4 {
            let Shown::Output(bytes) = seen(&mut viewer).await else { panic!("closed") };
            all.extend(bytes);
        }
        // Cancelled while nobody listened, and told late.
        drop(stream);
        tell(&app, host, task, Stage::Failed).await;
        let text = fs::read_to_string(world.data_dir().join(format!("shells/{task}.cast")));
        let text = text.expect("recording");
        assert!(text.contains("before") && text.contains("began anew"), "{text}");
        // A recording that an end has passed by is found.
        let stray = world.data_dir().join(format!("shells/{task}.part"));
        fs::rename(world.data_dir().join(format!("shells/{task}.cast")), &stray).expect("rename");
        crate::world::until("it is closed", || async { !stray.exists() }).await;
        app.stop().await;
    }
}
