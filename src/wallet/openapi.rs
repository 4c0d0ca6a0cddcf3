//! The OpenAPI document of the wallet, written by hand: four calls do not need a table. `docs/wallet.md` says
//! what the calls mean; this is for tools.

use axum::Json;
use serde_json::{Value, json};

pub(super) async fn serve() -> Json<Value> {
    Json(document())
}

fn reference(name: &str) -> Value {
    json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}})
}

fn call(summary: &str, takes: &str, gives: &str) -> Value {
    let problem = json!({"$ref": "#/components/schemas/Problem"});
    let mut call = json!({
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": reference(gives)},
            "default": {
                "description": "Any refusal",
                "content": {"application/problem+json": {"schema": problem}},
            },
        },
    });
    if !takes.is_empty() {
        call["requestBody"] = json!({"required": true, "content": reference(takes)});
    }
    call
}

fn document() -> Value {
    let name = json!({"type": "string", "minLength": 1, "maxLength": super::entry::NAME_BYTES_MAX});
    let text = json!({"type": "string"});
    let whole = json!({"type": "integer", "minimum": 1, "maximum": crate::domain::money::AMOUNT_MAX});
    let many = |of: Value| json!({"type": "array", "maxItems": super::entry::ENTRIES_MAX, "items": of});
    let object = |required: &[&str], properties: Value| json!({"type": "object", "required": required, "properties": properties});
    json!({
        "openapi": "3.1.0",
        "info": {"title": "hongbao wallet", "version": env!("CARGO_PKG_VERSION")},
        "paths": {
            "/v1/identity": {"get": call("Whose books these are", "", "Identity")},
            "/v1/transfers": {"post": call("Decide transfers", "Transfers", "Results")},
            "/v1/transfers/lookup": {"post": call("What is on record", "Ids", "Results")},
            "/v1/transfers/burn": {"post": call("Take ids out of use", "Ids", "Results")},
        },
        "components": {"schemas": {
            "Identity": object(&["identity"], json!({"identity": {"type": "string", "format": "uuid"}})),
            "Ids": object(&["ids"], json!({"ids": many(name.clone())})),
            "Transfers": object(&["deadline_ms", "transfers"], json!({
                "deadline_ms": {"type": "integer", "minimum": 1, "maximum": super::entry::DEADLINE_MS_MAX},
                "transfers": many(json!({"$ref": "#/components/schemas/Entry"})),
            })),
            "Entry": object(&["id", "kind", "amount", "currency"], json!({
                "id": name,
                "kind": {"type": "string", "enum": ["transfer", "hold", "post", "void", "reverse"]},
                "debit": name,
                "credit": name,
                "amount": whole,
                "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
                "of": name,
                "expires_in_s": {"type": "integer", "minimum": 1},
                "memo": text,
            })),
            "Results": object(&["results"], json!({
                "results": {"type": "array", "items": {"$ref": "#/components/schemas/Outcome"}},
            })),
            "Outcome": object(&["id", "status"], json!({
                "id": name,
                "status": {"enum": ["succeeded", "failed", "unknown", "burned", "not_found"]},
                "code": text,
                "wallet_ref": text,
                "amount": whole,
            })),
            "Problem": object(&["type", "status", "code"], json!({
                "type": text,
                "title": text,
                "status": {"type": "integer"},
                "detail": text,
                "code": text,
                "accepted": {"enum": ["no", "unknown"]},
                "errors": {"type": "array", "items": object(
                    &["pointer", "code", "detail"],
                    json!({"pointer": text, "code": text, "detail": text}),
                )},
            })),
        }},
    })
}
