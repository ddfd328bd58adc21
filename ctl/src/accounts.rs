//! `holdfast-ctl users`, `api-tokens`, `enrollment-tokens`, `audit`.

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::arguments::{ApiTokens, EnrollmentTokens, Limit, Period, Users};
use crate::out::Column;
use crate::pages::{self, span_s};
use crate::session::secret_show;
use crate::{CtlError, Session, secret};

const USERS: &str = "/api/v1/users";
const USER_COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("ROLE", "/role"),
    ("SHELLS", "/may_shell"),
    ("DISABLED", "/disabled"),
    ("LOCKED UNTIL", "/locked_until_ms"),
    ("MUST CHANGE PASSWORD", "/must_change_password"),
    ("ID", "/id"),
];
const API_TOKENS: &str = "/api/v1/api-tokens";
const API_TOKEN_COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("SCOPES", "/scopes"),
    ("USED", "/used_ms"),
    ("EXPIRES", "/expires_ms"),
    ("ID", "/id"),
];
const ENROLLMENT: &str = "/api/v1/enrollment-tokens";
const ENROLLMENT_COLUMNS: &[Column] = &[
    ("GROUP", "/group"),
    ("LEFT", "/uses_left"),
    ("EXPIRES", "/expires_ms"),
    ("REVOKED", "/revoked_ms"),
    ("NOTE", "/note"),
    ("BY", "/created_by"),
    ("ID", "/id"),
];
const AUDIT_COLUMNS: &[Column] = &[
    ("TIME", "/time_ms"),
    ("ACTOR", "/actor"),
    ("ACTION", "/action"),
    ("TARGET", "/target"),
    ("DETAIL", "/detail"),
];

async fn whole(session: &Session, path: &str, columns: &[Column]) -> Result<u8, CtlError> {
    let list = session.client.get(path, &[]).await?;
    let Value::Array(list) = list else {
        return Err(CtlError::Failed("the answer is no list; do the versions match?".to_owned()));
    };
    session.out.list(columns, &list)?;
    Ok(0)
}

async fn remove(session: &Session, path: &str, what: &str, id: &str) -> Result<u8, CtlError> {
    let id = pages::id(what, id)?;
    session.client.call(Method::DELETE, &format!("{path}/{id}"), None).await?;
    session.done("it is taken back", &json!({ "removed": id }))
}

pub(crate) async fn users(session: &mut Session, command: Users) -> Result<u8, CtlError> {
    let user = match command {
        Users::List => return whole(session, USERS, USER_COLUMNS).await,
        Users::Create { name, role } => {
            let password = secret::new_password(&format!("first password of {name}"))?;
            let body = json!({ "name": name, "role": role, "password": password });
            session.client.call(Method::POST, USERS, Some(&body)).await?
        }
        Users::Edit { user, role, disable, enable, shell, password } => {
            let id = pages::named(session, USERS, "user", &user).await?;
            let mut body = Map::new();
            body.extend(role.map(|role| ("role".to_owned(), Value::from(role))));
            if disable || enable {
                body.insert("disabled".to_owned(), Value::from(disable));
            }
            body.extend(shell.map(|shell| ("may_shell".to_owned(), Value::from(shell == "on"))));
            if password {
                let new = secret::new_password(&format!("new first password of {user}"))?;
                body.insert("password".to_owned(), Value::from(new));
            }
            if body.is_empty() {
                let why = "nothing to change: --role, --disable, --enable, --shell or --password";
                return Err(CtlError::Usage(why.to_owned()));
            }
            let path = format!("{USERS}/{id}");
            session.client.call(Method::PATCH, &path, Some(&Value::Object(body))).await?
        }
    };
    session.out.list(USER_COLUMNS, &[user])?;
    Ok(0)
}

pub(crate) async fn api_tokens(session: &mut Session, command: ApiTokens) -> Result<u8, CtlError> {
    match command {
        ApiTokens::List => whole(session, API_TOKENS, API_TOKEN_COLUMNS).await,
        ApiTokens::Create { name, scopes, valid, save } => {
            let valid_s = span_s("--valid", &valid)?;
            let body = json!({ "name": name, "scopes": scopes, "valid_s": valid_s });
            let mut made = session.client.call(Method::POST, API_TOKENS, Some(&body)).await?;
            secret_show(session, &mut made, save.as_deref(), API_TOKEN_COLUMNS)?;
            Ok(0)
        }
        ApiTokens::Delete { id } => remove(session, API_TOKENS, "API token", &id).await,
    }
}

pub(crate) async fn enrollment_tokens(
    session: &mut Session,
    command: EnrollmentTokens,
) -> Result<u8, CtlError> {
    match command {
        EnrollmentTokens::List => whole(session, ENROLLMENT, ENROLLMENT_COLUMNS).await,
        EnrollmentTokens::Create { group, uses, valid, note } => {
            let valid_s = span_s("--valid", &valid)?;
            let body = json!({ "group": group, "uses": uses, "valid_s": valid_s, "note": note });
            let mut made = session.client.call(Method::POST, ENROLLMENT, Some(&body)).await?;
            secret_show(session, &mut made, None, ENROLLMENT_COLUMNS)?;
            Ok(0)
        }
        EnrollmentTokens::Revoke { id } => {
            remove(session, ENROLLMENT, "enrollment token", &id).await
        }
    }
}

pub(crate) async fn audit(
    session: &mut Session,
    period: &Period,
    limit: Limit,
) -> Result<u8, CtlError> {
    let query = pages::period(period)?;
    pages::show(session, "/api/v1/audit", &query, limit, AUDIT_COLUMNS).await
}
