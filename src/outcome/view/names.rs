//! Numbers for the names that repeat: clients, campaigns, batches.
//!
//! A number is given at the first sight of a name, inside the transaction that needs it, and never changes.
//! The memory of them is bounded, and forgotten whenever a transaction did not commit.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::ViewError;

/// Names remembered per table; past it the memory is emptied and fills again.
const REMEMBERED_MAX: usize = 32 * 1024;

#[derive(Debug, Default)]
pub struct Names {
    clients: Memory,
    campaigns: Memory,
    batches: Memory,
}

#[derive(Debug, Default)]
struct Memory {
    by_owner: HashMap<i64, HashMap<String, i64>>,
    count: usize,
    last: Option<(i64, String, i64)>,
}

impl Memory {
    fn get(&mut self, owner: i64, name: &str) -> Option<i64> {
        if let Some((last_owner, last_name, number)) = &self.last
            && *last_owner == owner
            && last_name == name
        {
            return Some(*number);
        }
        let number = *self.by_owner.get(&owner)?.get(name)?;
        self.last = Some((owner, name.to_owned(), number));
        Some(number)
    }

    fn put(&mut self, owner: i64, name: &str, number: i64) {
        if self.count >= REMEMBERED_MAX {
            *self = Memory::default();
        }
        self.by_owner.entry(owner).or_default().insert(name.to_owned(), number);
        self.count += 1;
        self.last = Some((owner, name.to_owned(), number));
    }
}

impl Names {
    pub fn forget(&mut self) {
        *self = Names::default();
    }
}

/// What a batch is remembered by, from its first item.
#[derive(Clone, Copy, Debug)]
pub struct FirstItem {
    pub campaign: i64,
    pub currency: i64,
    pub accepted_at: i64,
}

/// The statements that look numbers up and give new ones, prepared once a transaction.
pub struct Numbering<'c> {
    client: Pair<'c>,
    campaign: Pair<'c>,
    batch: Pair<'c>,
    names: &'c mut Names,
}

struct Pair<'c> {
    select: CachedStatement<'c>,
    insert: CachedStatement<'c>,
}

impl<'c> Pair<'c> {
    fn prepare(conn: &'c Connection, select: &str, insert: &str) -> Result<Pair<'c>, ViewError> {
        Ok(Pair { select: conn.prepare_cached(select)?, insert: conn.prepare_cached(insert)? })
    }
}

impl<'c> Numbering<'c> {
    pub fn prepare(conn: &'c Connection, names: &'c mut Names) -> Result<Numbering<'c>, ViewError> {
        Ok(Numbering {
            client: Pair::prepare(conn, CLIENT, "INSERT INTO clients (name) VALUES (?1)")?,
            campaign: Pair::prepare(conn, CAMPAIGN, "INSERT INTO campaigns (client, name) VALUES (?1, ?2)")?,
            batch: Pair::prepare(
                conn,
                BATCH,
                "INSERT INTO batches (client, name, campaign, currency, accepted_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?,
            names,
        })
    }

    pub fn client(&mut self, name: &str) -> Result<i64, ViewError> {
        if let Some(number) = self.names.clients.get(0, name) {
            return Ok(number);
        }
        let found = self.client.select.query_row([name], |row| row.get(0)).optional()?;
        let number = match found {
            Some(number) => number,
            None => self.client.insert.insert([name])?,
        };
        self.names.clients.put(0, name, number);
        Ok(number)
    }

    pub fn campaign(&mut self, client: i64, name: &str) -> Result<i64, ViewError> {
        if let Some(number) = self.names.campaigns.get(client, name) {
            return Ok(number);
        }
        let found = self.campaign.select.query_row(params![client, name], |row| row.get(0)).optional()?;
        let number = match found {
            Some(number) => number,
            None => self.campaign.insert.insert(params![client, name])?,
        };
        self.names.campaigns.put(client, name, number);
        Ok(number)
    }

    pub fn batch(&mut self, client: i64, name: &str, first: FirstItem) -> Result<i64, ViewError> {
        if let Some(number) = self.names.batches.get(client, name) {
            return Ok(number);
        }
        let found = self.batch.select.query_row(params![client, name], |row| row.get(0)).optional()?;
        let number = match found {
            Some(number) => number,
            None => {
                let FirstItem { campaign, currency, accepted_at } = first;
                self.batch.insert.insert(params![client, name, campaign, currency, accepted_at])?
            }
        };
        self.names.batches.put(client, name, number);
        Ok(number)
    }
}

const CLIENT: &str = "SELECT number FROM clients WHERE name = ?1";
const CAMPAIGN: &str = "SELECT number FROM campaigns WHERE client = ?1 AND name = ?2";
const BATCH: &str = "SELECT number FROM batches WHERE client = ?1 AND name = ?2";

/// The number of a client, if the view has met it. For readers.
pub fn find_client(conn: &Connection, name: &str) -> Result<Option<i64>, ViewError> {
    Ok(conn.prepare_cached(CLIENT)?.query_row([name], |row| row.get(0)).optional()?)
}

pub fn find_campaign(conn: &Connection, client: i64, name: &str) -> Result<Option<i64>, ViewError> {
    Ok(conn.prepare_cached(CAMPAIGN)?.query_row(params![client, name], |row| row.get(0)).optional()?)
}

pub fn find_batch(conn: &Connection, client: i64, name: &str) -> Result<Option<i64>, ViewError> {
    Ok(conn.prepare_cached(BATCH)?.query_row(params![client, name], |row| row.get(0)).optional()?)
}
