//! What lies in a database, counted behind the manager's back.

use anyhow::{Context, Result};
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, Row};

/// A database.
pub struct Database(AnyPool);

/// What it holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Count {
    /// Events.
    pub events: i64,
    /// Different ids among them.
    pub ids: i64,
    /// Those that the search index has.
    pub indexed: i64,
}

impl Database {
    /// Opens it beside the manager.
    ///
    /// # Errors
    /// When it cannot be.
    pub async fn open(url: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new().max_connections(1).connect(url).await;
        Ok(Self(pool.with_context(|| format!("open {url}"))?))
    }

    /// Counts.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn count(&self, sqlite: bool) -> Result<Count> {
        let row = sqlx::query("SELECT COUNT(*) AS n, COUNT(DISTINCT id) AS ids FROM events")
            .fetch_one(&self.0)
            .await?;
        let (events, ids) = (row.try_get("n")?, row.try_get("ids")?);
        let every = if sqlite {
            "SELECT COUNT(*) AS n FROM events_text WHERE events_text MATCH 'facts : every'"
        } else {
            "SELECT COUNT(*) AS n FROM events WHERE words @@ CAST('every' AS tsquery)"
        };
        let indexed = sqlx::query(every).fetch_one(&self.0).await?.try_get("n")?;
        Ok(Count { events, ids, indexed })
    }
}
