//! The second factor: what opens, what does not, and how often.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use holdfast_manager::api::router;
use holdfast_manager::app::{
    App, AppError, Principal, Role, Scope, SignIn, SignInError, TotpOffer, now_ms,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{On, World, on_both, run};

const PASSWORD: &str = "correct horse battery";

async fn user(app: &App, name: &str, role: Role) -> Principal {
    app.user_create(name, role, "first password", "test").await.expect("user");
    let signed_in = app.sign_in(name, "first password", "test").await.expect("sign in");
    app.password_change(&signed_in.principal, "first password", PASSWORD).await.expect("change");
    app.principal(&signed_in.secret).await.expect("look up").expect("still signed in")
}

/// The code of so many steps from now.
fn code(offer: &TotpOffer, steps: i64) -> String {
    let secret = totp_rs::Secret::try_from_base32(&offer.secret).expect("base32");
    let totp = totp_rs::Builder::new().with_secret(secret).build().expect("totp");
    let time_s = now_ms() / 1000 + 30 * steps;
    totp.generate(u64::try_from(time_s).expect("time")).to_string()
}

/// A code that is none of those around now.
fn wrong_code(offer: &TotpOffer) -> String {
    let near: Vec<String> = (-3..=3).map(|steps| code(offer, steps)).collect();
    let mut all = (0..).map(|number| format!("{number:06}"));
    all.find(|one| !near.contains(one)).expect("a wrong code")
}

/// Waits until a step has at least 20 seconds left, so that the codes of a test are its own.
async fn early_in_a_step() {
    let deadline = Instant::now() + Duration::from_secs(40);
    while now_ms() / 1000 % 30 >= 10 {
        assert!(Instant::now() < deadline, "the clock stands");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Enrolls with the code of the step before, so that those of this one and the next are left.
async fn enrolled(app: &App, who: &Principal) -> (TotpOffer, Vec<String>) {
    let offer = app.totp_begin(who, PASSWORD).await.expect("offer");
    early_in_a_step().await;
    let codes = app.totp_confirm(who, &code(&offer, -1)).await.expect("confirm");
    (offer, codes)
}

async fn enter(app: &App, name: &str, code: &str) -> Result<SignIn, SignInError> {
    app.sign_in_with_code(name, PASSWORD, Some(code), "test").await
}

fn wrong<T>(result: &Result<T, SignInError>) -> bool {
    matches!(result, Err(SignInError::Wrong))
}

on_both! {
    async fn a_code_is_needed_and_opens_once(world: World) {
        let app = &world.app;
        let ann = user(app, "ann", Role::Operator).await;
        assert!(wrong(&app.totp_begin(&ann, "wrong password").await));
        let nothing = app.totp_confirm(&ann, "123456").await;
        assert!(matches!(nothing, Err(SignInError::App(AppError::Conflict(_)))));
        let first = app.totp_begin(&ann, PASSWORD).await.expect("offer");
        let offer = app.totp_begin(&ann, PASSWORD).await.expect("another offer");
        assert!(offer.uri.starts_with("otpauth://totp/Holdfast"), "{}", offer.uri);
        assert!(offer.uri.contains(&format!("secret={}", offer.secret)), "{}", offer.uri);
        early_in_a_step().await;
        assert!(wrong(&app.totp_confirm(&ann, &code(&first, 0)).await), "the offer before");
        assert!(wrong(&app.totp_confirm(&ann, &code(&offer, -3)).await), "too old");
        let other = app.sign_in("ann", PASSWORD, "test").await.expect("not confirmed: no code");
        let codes = app.totp_confirm(&ann, &code(&offer, -1)).await.expect("confirm");
        assert_eq!(codes.len(), 10);
        assert!(app.principal(&other.secret).await.expect("look up").is_none());
        let needed = app.sign_in("ann", PASSWORD, "test").await;
        assert!(matches!(needed, Err(SignInError::SecondFactor)));
        assert!(wrong(&enter(app, "ann", &code(&offer, -1)).await), "it confirmed already");
        let now = code(&offer, 0);
        let guess = app.sign_in_with_code("ann", "wrong password", Some(&now), "test").await;
        assert!(wrong(&guess));
        enter(app, "ann", &now).await.expect("password and code");
        assert!(wrong(&enter(app, "ann", &now).await), "a code opens once");
        enter(app, "ann", &code(&offer, 1)).await.expect("a clock that is ahead");
        assert!(wrong(&enter(app, "ann", &now).await), "never again after a later one");
        assert!(wrong(&enter(app, "ann", &code(&offer, 2)).await), "too far ahead");
        let again = app.totp_begin(&ann, PASSWORD).await;
        assert!(matches!(again, Err(SignInError::App(AppError::Conflict(_)))));
        let users = format!("{:?}", app.user_list().await.expect("users"));
        let audit = app.audit_list(None, (0, i64::MAX), 100, "").await.expect("audit");
        let audit = format!("{audit:?}");
        for secret in [&offer.secret, &codes[0], &codes[0].replace('-', "")] {
            assert!(!users.contains(secret.as_str()) && !audit.contains(secret.as_str()));
        }
        for action in ["user.totp_offer", "user.totp_confirm", "password and code"] {
            assert!(audit.contains(action), "{action} is not in {audit}");
        }
    }

    async fn a_recovery_code_opens_once_and_for_its_user_alone(world: World) {
        let app = &world.app;
        let (ann, bob) = (user(app, "ann", Role::Viewer).await, user(app, "bob", Role::Viewer).await);
        let (_, codes) = enrolled(app, &ann).await;
        let (_, bobs) = enrolled(app, &bob).await;
        assert!(wrong(&enter(app, "ann", &bobs[0]).await));
        enter(app, "ann", &codes[0]).await.expect("as it was shown");
        assert!(wrong(&enter(app, "ann", &codes[0]).await), "once");
        let typed = codes[1].replace('-', " ").to_uppercase();
        enter(app, "ann", &format!(" {typed} ")).await.expect("as it is typed");
        assert!(wrong(&enter(app, "ann", &codes[1]).await), "the same code");
        assert_eq!(app.totp_state(&ann).await.expect("state").recovery_codes, 8);
        let renewed = app.recovery_codes_renew(&ann, PASSWORD, &codes[2]).await.expect("renew");
        assert!(wrong(&enter(app, "ann", &codes[3]).await), "worth nothing any more");
        enter(app, "ann", &renewed[0]).await.expect("a new one");
        assert!(wrong(&app.totp_remove(&ann, "wrong password", &renewed[1]).await));
        assert!(wrong(&app.totp_remove(&ann, PASSWORD, &codes[4]).await));
        app.totp_remove(&ann, PASSWORD, &renewed[1]).await.expect("remove");
        assert_eq!(app.totp_state(&ann).await.expect("state").recovery_codes, 0);
        app.sign_in("ann", PASSWORD, "test").await.expect("no code is needed any more");
        let none = app.totp_remove(&ann, PASSWORD, &renewed[2]).await;
        assert!(matches!(none, Err(SignInError::App(AppError::Conflict(_)))));
        assert!(app.totp_state(&bob).await.expect("bob's").since_ms.is_some());
    }

    async fn wrong_codes_lock_a_user_however_many_come_at_once(world: World) {
        let app = &world.app;
        let ann = user(app, "ann", Role::Viewer).await;
        let (offer, codes) = enrolled(app, &ann).await;
        let guess = wrong_code(&offer);
        let tries = (0..30).map(|_| enter(app, "ann", &guess));
        let answers = futures_util::future::join_all(tries).await;
        let wrongs = answers.iter().filter(|answer| wrong(answer)).count();
        let locked = |answer: &Result<SignIn, _>| matches!(answer, Err(SignInError::Locked(_)));
        assert_eq!((wrongs, answers.iter().filter(|answer| locked(answer)).count()), (5, 25));
        assert!(locked(&enter(app, "ann", &code(&offer, 0)).await), "even with the right one");
        assert!(locked(&enter(app, "ann", &codes[0]).await), "and with a recovery code");
        let begun = app.recovery_codes_renew(&ann, PASSWORD, &codes[0]).await;
        assert!(matches!(begun, Err(SignInError::Locked(_))));
    }

    async fn a_code_that_comes_many_times_at_once_opens_once(world: World) {
        let app = &world.app;
        // On PostgreSQL another manager is asked too.
        let other = match world.on() {
            On::Sqlite => app.clone(),
            On::Postgres => App::start(world.settings.clone()).await.expect("other"),
        };
        let ann = user(app, "ann", Role::Viewer).await;
        let (offer, codes) = enrolled(app, &ann).await;
        for one in [code(&offer, 0), codes[0].clone()] {
            let tries = (0..4).map(|at| enter(if at % 2 == 0 { app } else { &other }, "ann", &one));
            let answers = futures_util::future::join_all(tries).await;
            let opened = answers.iter().filter(|answer| answer.is_ok()).count();
            let errors: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
            assert_eq!(opened, 1, "{errors:?}");
        }
        if world.on() == On::Postgres {
            other.stop().await;
        }
    }

    async fn hostile_codes_are_wrong_and_nothing_else(world: World) {
        let app = &world.app;
        let ann = user(app, "ann", Role::Viewer).await;
        let (offer, _) = enrolled(app, &ann).await;
        let now = code(&offer, 0);
        let wide: String = now.chars().map(|c| char::from_u32(c as u32 + 0xfee0).expect("c")).collect();
        for hostile in ["", &wide, &format!("{now}0"), &format!("+{}", &now[1..]),
            "' OR 1=1 --", "a\0b", "\u{202e}123456", &"7".repeat(100_000), "----------------"] {
            let refused = enter(app, "ann", hostile).await;
            assert!(matches!(refused, Err(SignInError::Wrong | SignInError::Locked(_))), "{hostile}");
        }
    }

    async fn an_admin_resets_somebody_elses_and_the_command_line_anybodys(world: World) {
        let app = &world.app;
        let root = user(app, "root", Role::Admin).await;
        let ann = user(app, "ann", Role::Viewer).await;
        let (offer, _) = enrolled(app, &ann).await;
        let signed_in = enter(app, "ann", &code(&offer, 0)).await.expect("sign in");
        let (_, token) = app.api_token_create(&ann, "ci", &[Scope::Read], 60).await.expect("token");
        app.totp_reset(ann.user, &root).await.expect("reset");
        assert!(app.principal(&signed_in.secret).await.expect("look up").is_none());
        assert!(app.principal(&token).await.expect("look up").is_some(), "tokens need no code");
        app.sign_in("ann", PASSWORD, "test").await.expect("no code");
        let none = app.totp_reset(ann.user, &root).await;
        assert!(matches!(none, Err(AppError::Conflict(_))));
        enrolled(app, &root).await;
        let own = app.totp_reset(root.user, &root).await;
        assert!(matches!(own, Err(AppError::Conflict(_))), "one's own needs a code");
        app.totp_reset_local("root").await.expect("locally");
        app.sign_in("root", PASSWORD, "test").await.expect("no code");
        let rows = app.audit_list(None, (0, i64::MAX), 100, "").await.expect("audit");
        let resets = rows.iter().filter(|row| row.entry.action == "user.totp_reset");
        let resets: Vec<_> = resets.map(|row| (&*row.entry.actor, &*row.entry.target)).collect();
        assert!(resets.contains(&("root", "ann")) && resets.contains(&("local", "root")));
    }
}

#[test]
fn by_http_a_problem_says_that_a_code_is_needed() {
    run(On::Sqlite, |world| async move {
        let app = &world.app;
        let ann = user(app, "ann", Role::Viewer).await;
        let (offer, _) = enrolled(app, &ann).await;
        let send = async |body: Value| {
            let request = Request::builder()
                .method("POST")
                .uri("/api/v1/session")
                .header("content-type", "application/json")
                .body(Body::from(body.to_string()));
            let answer = router(app.clone()).oneshot(request.expect("request")).await;
            let answer = answer.expect("answer");
            let status = answer.status();
            let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("body");
            (status, serde_json::from_slice::<Value>(&bytes).expect("json"))
        };
        let (status, problem) = send(json!({"name": "ann", "password": PASSWORD})).await;
        assert_eq!((status, &problem["second_factor"]), (StatusCode::UNAUTHORIZED, &json!(true)));
        let (status, problem) = send(json!({"name": "ann", "password": "wrong password"})).await;
        assert_eq!((status, &problem["second_factor"]), (StatusCode::UNAUTHORIZED, &Value::Null));
        let body = json!({"name": "ann", "password": PASSWORD, "code": code(&offer, 0)});
        let (status, session) = send(body).await;
        assert_eq!(status, StatusCode::CREATED);
        assert!(session["token"].as_str().expect("token").starts_with("hfs_"));
    });
}
