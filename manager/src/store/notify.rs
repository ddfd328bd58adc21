//! Word between the managers of one PostgreSQL database: LISTEN and NOTIFY.

use sqlx::postgres::PgListener;

use super::{Backend, Store, StoreError, Tx, failed};

const CHANNEL: &str = "holdfast";

/// Tells other managers, once the transaction lasts. Nothing on SQLite, where there are none.
///
/// # Errors
/// [`StoreError`]
pub async fn notify(tx: &mut Tx, text: String) -> Result<(), StoreError> {
    if tx.backend() == Backend::Postgres {
        sqlx::query("SELECT pg_notify($1, $2)")
            .bind(CHANNEL)
            .bind(text)
            .execute(tx.conn())
            .await
            .map_err(failed("tell other managers"))?;
    }
    Ok(())
}

/// Hears what other managers tell.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Listener {
    /// The next word; nothing when the connection was lost in between, and is back.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn next(&mut self) -> Result<Option<String>, StoreError> {
        let heard = self.0.try_recv().await.map_err(failed("hear other managers"))?;
        Ok(heard.map(|notification| notification.payload().to_owned()))
    }
}

impl Store {
    /// Begins to listen. Nothing on SQLite.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn listen(&self) -> Result<Option<Listener>, StoreError> {
        let super::Place::Server(url) = &self.place else { return Ok(None) };
        let mut listener = PgListener::connect(url).await.map_err(failed("listen"))?;
        listener.listen(CHANNEL).await.map_err(failed("listen"))?;
        Ok(Some(Listener(listener)))
    }
}
