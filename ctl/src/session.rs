//! `holdfast-ctl sign-in`, `sign-out`, `whoami`, `password`.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::out::Column;
use crate::{CtlError, Session, secret};

const PATH: &str = "/api/v1/session";
const COLUMNS: &[Column] =
    &[("NAME", "/name"), ("ROLE", "/role"), ("MUST CHANGE PASSWORD", "/must_change_password")];

pub(crate) async fn sign_in(
    session: &mut Session,
    user: &str,
    save: Option<&Path>,
) -> Result<u8, CtlError> {
    let password = secret::password(&format!("password of {user}"))?;
    let body = json!({ "name": user, "password": password });
    let mut signed_in = session.client.call(Method::POST, PATH, Some(&body)).await?;
    if signed_in["must_change_password"] == true {
        // It opens nothing else.
        session.client.bear(signed_in["token"].as_str().unwrap_or_default())?;
        change(session, &password, "a new password, since this one must be changed").await?;
        signed_in["must_change_password"] = false.into();
    }
    secret_show(session, &mut signed_in, save, &[])?;
    Ok(0)
}

/// Shows what was made, once: its secret alone for people, so that a shell can take it; or keeps
/// the secret in a file and shows the rest.
pub(crate) fn secret_show(
    session: &Session,
    made: &mut Value,
    save: Option<&Path>,
    columns: &[Column],
) -> Result<(), CtlError> {
    let token = made["token"].as_str().map(str::to_owned);
    let token = token.ok_or_else(|| {
        CtlError::Failed("the answer has no token; do the versions match?".to_owned())
    })?;
    let Some(file) = save else {
        return if session.out.json { session.out.json(made) } else { session.out.line(&token) };
    };
    secret::keep(file, &token)?;
    if let Some(map) = made.as_object_mut() {
        map.remove("token");
    }
    let columns = if columns.is_empty() { COLUMNS } else { columns };
    session.out.list(columns, std::slice::from_ref(made))
}

pub(crate) async fn sign_out(session: &mut Session) -> Result<u8, CtlError> {
    session.client.call(Method::DELETE, PATH, None).await?;
    session.done("signed out", &json!({ "signed_out": true }))
}

pub(crate) async fn whoami(session: &mut Session) -> Result<u8, CtlError> {
    let who = session.client.get(PATH, &[]).await?;
    session.out.list(COLUMNS, &[who])?;
    Ok(0)
}

pub(crate) async fn password(session: &mut Session) -> Result<u8, CtlError> {
    let old = secret::password("old password")?;
    change(session, &old, "new password").await?;
    session.done("the password is changed", &json!({ "changed": true }))
}

async fn change(session: &Session, old: &str, what: &str) -> Result<(), CtlError> {
    let new = secret::new_password(what)?;
    let body = json!({ "old": old, "new": new });
    session.client.call(Method::POST, &format!("{PATH}/password"), Some(&body)).await?;
    Ok(())
}
