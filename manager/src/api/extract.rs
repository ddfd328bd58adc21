//! What requests bring, with errors as problems: JSON bodies, queries, pages, periods.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;
use crate::app::now_ms;

/// Things on a page, usually and at most.
const USUAL: u32 = 50;
const MOST: u32 = 500;
/// The usual period.
const DAY_MS: i64 = 86_400_000;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(error) => Err(json_problem(&error)),
        }
    }
}

fn json_problem(error: &JsonRejection) -> Problem {
    Problem::new(error.status(), error.body_text())
}

/// The query of the address.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(QueryRejection::FailedToDeserializeQueryString(error)) => {
                Err(Problem::bad(error.body_text()))
            }
            Err(error) => Err(Problem::bad(error.to_string())),
        }
    }
}

/// The last part of the path.
pub(super) struct Id<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => {
                Err(Problem::bad(error.body_text()))
            }
            Err(error) => Err(Problem::bad(error.to_string())),
        }
    }
}

/// Which page.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct PageParams {
    /// `next` of the page before.
    cursor: Option<String>,
    /// Things on the page, 1 to 500; 50 without it.
    limit: Option<u32>,
}

impl PageParams {
    pub(super) fn limit(&self) -> Result<u32, Problem> {
        match self.limit.unwrap_or(USUAL) {
            limit @ 1..=MOST => Ok(limit),
            _ => Err(Problem::bad(format!("limit: 1 to {MOST}"))),
        }
    }

    /// What the cursor names.
    pub(super) fn cursor(&self) -> Result<Option<i64>, Problem> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let number = cursor.strip_prefix('c').and_then(|digits| digits.parse::<i64>().ok());
        match number.filter(|number| *number >= 0) {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::bad("cursor: take it from `next` of the page before")),
        }
    }
}

/// The cursor of a number.
pub(super) fn cursor(number: i64) -> String {
    format!("c{number}")
}

/// Which time.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct PeriodParams {
    /// From this on, milliseconds since the epoch; 24 hours before `until_ms` without it.
    from_ms: Option<i64>,
    /// Before this; without it a day from now, since hosts' clocks may be ahead.
    until_ms: Option<i64>,
}

impl PeriodParams {
    pub(super) fn period(&self) -> Result<(i64, i64), Problem> {
        let now = now_ms();
        let until = self.until_ms.unwrap_or(now.saturating_add(DAY_MS));
        let usual = self.until_ms.unwrap_or(now).saturating_sub(DAY_MS);
        let from = self.from_ms.unwrap_or(usual);
        if from >= until {
            return Err(Problem::bad("from_ms must be before until_ms"));
        }
        Ok((from, until))
    }
}

/// One page.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// What is on it.
    pub(super) items: Vec<T>,
    /// `cursor` of the next page; nothing when this is the last.
    pub(super) next: Option<String>,
}

impl<T> Page<T> {
    /// Of a list that was asked for with one more than fits.
    pub(super) fn of<S>(
        mut list: Vec<S>,
        limit: u32,
        number: impl Fn(&S) -> i64,
        show: impl FnMut(S) -> T,
    ) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = list.len() > limit;
        list.truncate(limit);
        let next = list.last().filter(|_| more).map(|last| cursor(number(last)));
        Self { items: list.into_iter().map(show).collect(), next }
    }
}
