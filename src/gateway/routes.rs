//! The table of routes: every call, what it takes and what it answers.
//!
//! The router and the OpenAPI document are both made from this table, so neither can know a call that the
//! other does not. No layer lies over the routes: what a call needs, it asks for.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::{Gateway, batches, campaigns, lists, parked, payouts, service};
use crate::request::shape::{self, Shape};

/// A good answer: its status code and the name of its body's schema, if it has one.
pub type GoodAnswer = (u16, Option<&'static str>);

/// One call.
pub struct Row {
    pub method: MethodFilter,
    pub path: &'static str,
    pub summary: &'static str,
    pub takes: Option<&'static Shape>,
    /// The filters it takes in its query, and what they are.
    pub filters: &'static [(&'static str, &'static str)],
    pub answers: &'static [GoodAnswer],
    route: MethodRouter<Arc<Gateway>>,
}

impl Row {
    fn takes(self, shape: &'static Shape) -> Row {
        Row { takes: Some(shape), ..self }
    }

    fn filtered(self, filters: &'static [(&'static str, &'static str)]) -> Row {
        Row { filters, ..self }
    }
}

fn row<H, T>(
    method: MethodFilter,
    path: &'static str,
    handler: H,
    summary: &'static str,
    answers: &'static [GoodAnswer],
) -> Row
where
    H: Handler<T, Arc<Gateway>>,
    T: 'static,
{
    Row { method, path, summary, takes: None, filters: &[], answers, route: on(method, handler) }
}

const STATUS: &[GoodAnswer] = &[(200, Some("Status"))];
const STATUS_OR_PENDING: &[GoodAnswer] = &[(200, Some("Status")), (202, Some("Status"))];
const ACCEPTED: &[GoodAnswer] = &[(202, Some("Accepted")), (200, Some("Status"))];
const BATCH_ACCEPTED: &[GoodAnswer] = &[(202, Some("BatchAccepted")), (200, Some("BatchAccepted"))];
const CAMPAIGN: &[GoodAnswer] = &[(200, Some("Campaign"))];
const PLAIN: &[GoodAnswer] = &[(200, None)];

pub fn table() -> Vec<Row> {
    const GET: MethodFilter = MethodFilter::GET;
    const POST: MethodFilter = MethodFilter::POST;
    const PUT: MethodFilter = MethodFilter::PUT;
    vec![
        row(POST, "/v1/disbursements", payouts::disburse, "Pay somebody from a campaign", ACCEPTED)
            .takes(&shape::DISBURSEMENT),
        row(GET, "/v1/disbursements", lists::list, "List requests", &[(200, Some("StatusPage"))])
            .filtered(&lists::FILTERS),
        row(POST, "/v1/disbursements/lookup", lists::lookup, "Look up many ids", &[(200, Some("Found"))])
            .takes(&shape::LOOKUP),
        row(GET, "/v1/disbursements/{id}", payouts::status, "Where a request stands", STATUS),
        row(POST, "/v1/disbursements/{id}/cancel", payouts::cancel, "Burn an id", STATUS_OR_PENDING)
            .takes(&shape::NOTHING),
        row(POST, "/v1/disbursements/{id}/reverse", payouts::reverse, "Take back what was paid", ACCEPTED)
            .takes(&shape::REVERSE),
        row(POST, "/v1/collections", payouts::collect, "Collect under an agreement", ACCEPTED)
            .takes(&shape::COLLECTION),
        row(GET, "/v1/collections/{id}", payouts::status, "Where a request stands", STATUS),
        row(POST, "/v1/batches", batches::submit, "Submit many at once", BATCH_ACCEPTED).takes(&shape::BATCH),
        row(GET, "/v1/batches/{id}", batches::status, "Where a batch stands", &[(200, Some("BatchStatus"))]),
        row(
            POST,
            "/v1/batches/{id}/cancel",
            batches::cancel,
            "Cancel what is not final",
            &[(200, Some("BatchCanceled"))],
        )
        .takes(&shape::NOTHING),
        row(PUT, "/v1/campaigns/{id}", campaigns::put, "Create a campaign or change it", CAMPAIGN)
            .takes(&shape::CAMPAIGN_PUT),
        row(GET, "/v1/campaigns/{id}", campaigns::status, "How a campaign stands", CAMPAIGN),
        row(POST, "/v1/campaigns/{id}/fund", campaigns::fund, "Put money in", STATUS_OR_PENDING)
            .takes(&shape::FUNDING),
        row(POST, "/v1/campaigns/{id}/defund", campaigns::defund, "Take money out", STATUS_OR_PENDING)
            .takes(&shape::FUNDING),
        row(POST, "/v1/campaigns/{id}/pause", campaigns::pause, "Take no new requests", CAMPAIGN)
            .takes(&shape::NOTHING),
        row(POST, "/v1/campaigns/{id}/resume", campaigns::resume, "Take requests again", CAMPAIGN)
            .takes(&shape::NOTHING),
        row(POST, "/v1/campaigns/{id}/close", campaigns::close, "Refuse everything, for good", CAMPAIGN)
            .takes(&shape::NOTHING),
        row(GET, "/v1/parked", parked::list, "What waits for a time", &[(200, Some("ParkedPage"))])
            .filtered(&parked::FILTERS),
        row(
            POST,
            "/v1/parked/release",
            parked::release,
            "Make what waits due now; what still may not be paid is parked again",
            &[(200, Some("Released"))],
        )
        .takes(&shape::PARKED_RELEASE),
        row(GET, "/healthz", service::healthz, "Alive", PLAIN),
        row(GET, "/readyz", service::readyz, "Able to accept durably", &[(200, None), (503, None)]),
        row(GET, "/metrics", service::metrics, "Prometheus metrics", PLAIN),
        row(GET, "/openapi.json", service::spec, "This document", PLAIN),
    ]
}

pub fn router(gateway: Gateway) -> Router {
    table()
        .into_iter()
        .fold(Router::new(), |router, row| router.route(row.path, row.route))
        .fallback(service::unknown_route)
        .method_not_allowed_fallback(service::wrong_method)
        .with_state(Arc::new(gateway))
}
