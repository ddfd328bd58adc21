//! Users, sign-ins, tokens.

use holdfast_manager::app::{App, AppError, Principal, Role, Scope, SignInError, UserEdit};

use crate::world::{World, on_both};

const PASSWORD: &str = "correct horse battery";

async fn user(app: &App, name: &str, role: Role) -> Principal {
    app.user_create(name, role, "first password", "test").await.expect("user");
    let signed_in = app.sign_in(name, "first password", "test").await.expect("sign in");
    assert!(signed_in.principal.must_change);
    let who = signed_in.principal;
    app.password_change(&who, "first password", PASSWORD).await.expect("change");
    app.principal(&signed_in.secret).await.expect("look up").expect("still signed in")
}

on_both! {
    async fn the_first_start_makes_one_admin_whose_password_must_be_changed(world: World) {
        let app = &world.app;
        let first = app.first_admin().await.expect("first").expect("one");
        assert!(app.first_admin().await.expect("second").is_none());
        let signed_in = app.sign_in(&first.name, &first.password, "x").await.expect("sign in");
        let who = signed_in.principal;
        assert!(who.must_change && who.role == Role::Admin);
        for bad in ["short", "aaaaaaaaaaaaaaaa", "my-admin-password", &first.password] {
            let refused = app.password_change(&who, &first.password, bad).await;
            assert!(matches!(refused, Err(SignInError::App(AppError::Invalid(_)))), "{bad}");
        }
        app.password_change(&who, &first.password, PASSWORD).await.expect("change");
        assert!(app.sign_in(&first.name, &first.password, "x").await.is_err(), "one time only");
        let again = app.sign_in(&first.name, PASSWORD, "x").await.expect("sign in");
        assert!(!again.principal.must_change);
        let users = format!("{:?}", app.user_list().await.expect("users"));
        assert!(users.contains("$argon2id$") && !users.contains(PASSWORD));
    }

    async fn wrong_passwords_lock_a_user_for_a_while(world: World) {
        let app = &world.app;
        user(app, "ann", Role::Viewer).await;
        for _ in 0..5 {
            let refused = app.sign_in("ann", "wrong", "x").await;
            assert!(matches!(refused, Err(SignInError::Wrong)));
        }
        let locked = app.sign_in("ann", PASSWORD, "x").await;
        assert!(matches!(locked, Err(SignInError::Locked(1..=61))), "even with the right one");
        for hostile in ["", "nobody", "ann'--", "a\0b", &"x".repeat(10_000)] {
            let refused = app.sign_in(hostile, "wrong", "x").await;
            assert!(matches!(refused, Err(SignInError::Wrong)), "{hostile}");
        }
    }

    async fn what_ends_a_sign_in_ends_it_at_once(world: World) {
        let app = &world.app;
        let admin = user(app, "root", Role::Admin).await;
        let ann = user(app, "ann", Role::Operator).await;
        let other = app.sign_in("ann", PASSWORD, "x").await.expect("another sign-in");
        app.password_change(&ann, PASSWORD, "another good password").await.expect("change");
        assert!(app.principal(&other.secret).await.expect("look up").is_none());
        let signed_in = app.sign_in("ann", "another good password", "x").await.expect("sign in");
        app.sign_out(&signed_in.principal).await.expect("sign out");
        assert!(app.principal(&signed_in.secret).await.expect("look up").is_none());
        let signed_in = app.sign_in("ann", "another good password", "x").await.expect("sign in");
        let (_, token) =
            app.api_token_create(&ann, "ci", &[Scope::Read], 60).await.expect("token");
        assert!(app.principal(&token).await.expect("look up").is_some());
        let disable = UserEdit { disabled: Some(true), ..UserEdit::default() };
        app.user_edit(ann.user, disable.clone(), "root").await.expect("disable");
        assert!(app.principal(&signed_in.secret).await.expect("look up").is_none());
        assert!(app.principal(&token).await.expect("look up").is_none());
        let refused = app.sign_in("ann", "another good password", "x").await;
        assert!(matches!(refused, Err(SignInError::Wrong)));
        let last = app.user_edit(admin.user, disable, "root").await;
        assert!(matches!(last, Err(AppError::Conflict(_))), "the last admin stays");
        let lower = UserEdit { role: Some(Role::Viewer), ..UserEdit::default() };
        assert!(app.user_edit(admin.user, lower, "root").await.is_err());
        for guess in ["", "hfs_", "hft_00", &"hfs_0".repeat(100)] {
            assert!(app.principal(guess).await.expect("look up").is_none());
        }
    }

    async fn a_lost_password_is_reset_from_the_command_line(world: World) {
        let app = &world.app;
        user(app, "ann", Role::Admin).await;
        let password = app.user_reset("ann").await.expect("reset");
        let signed_in = app.sign_in("ann", &password, "x").await.expect("sign in");
        assert!(signed_in.principal.must_change);
        assert!(app.sign_in("ann", PASSWORD, "x").await.is_err());
        assert!(app.user_reset("nobody").await.is_err());
    }
}
