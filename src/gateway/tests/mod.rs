//! Tests of the door against fakes of its ports: tables through one `check`.

mod bad_batches;
mod bad_input;
mod calls;
mod fake;
mod sockets;
mod spec;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::{Gateway, Options};
use fake::Fake;

/// 2026-01-01T00:00:00Z
const NOW: u64 = 1_767_225_600_000;

fn door(fake: &Arc<Fake>, options: &Options) -> Router {
    let fake = Arc::clone(fake);
    let gateway = Gateway::new(options, fake.clone(), fake.clone(), fake.clone(), fake, Arc::new(|| NOW));
    gateway.expect("the options are sound").into_router()
}

struct Got {
    status: u16,
    headers: HeaderMap,
    body: Value,
    text: String,
}

/// Sends one call. A JSON body is sent as such unless `headers` say otherwise.
async fn send(router: &Router, call: &str, headers: &[(&str, &str)], body: &str) -> Got {
    let (method, path) = call.split_once(' ').expect("METHOD path");
    let mut request = Request::builder().method(method).uri(path);
    if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    let got = Got { status, headers, body, text };
    got.assert_sound(method);
    got
}

impl Got {
    /// What holds of every answer, whatever the call.
    fn assert_sound(&self, method: &str) {
        let content_type = self.headers.get("content-type").map(|value| value.to_str().unwrap());
        if self.status >= 400 && method != "HEAD" && content_type != Some("application/json") {
            assert_eq!(content_type, Some("application/problem+json"), "{}", self.text);
            let code = self.body["code"].as_str().unwrap();
            assert_eq!(self.body["type"], format!("urn:hongbao:problem:{code}"));
            assert_eq!(self.body["status"], self.status);
            for member in ["title", "detail"] {
                assert!(!self.body[member].as_str().unwrap().is_empty(), "{}", self.text);
            }
            assert!(["no", "unknown"].contains(&self.body["accepted"].as_str().unwrap()));
        }
        let waits = self.headers.contains_key("retry-after");
        assert!(!matches!(self.status, 429 | 503) || waits || self.body["ready"] == false);
        assert_eq!(self.status == 401, self.headers.contains_key("www-authenticate"));
        assert_eq!(self.status == 405, self.headers.contains_key("allow") && self.status != 204);
    }

    /// `status code pointer:code pointer:code …`, sorted, so that a row of a table says all of it.
    fn gist(&self) -> String {
        let mut words = vec![self.status.to_string()];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(word) = self.body.get("code").or(self.body.get("status")) {
            words.push(text(word));
        }
        let mut errors: Vec<String> = self.body["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|error| format!("{}:{}", text(&error["pointer"]), text(&error["code"])))
            .collect();
        errors.sort();
        words.extend(errors);
        for item in self.body["refused"].as_array().into_iter().flatten() {
            words.push(format!("[{} {}]", item["index"], text(&item["code"])));
        }
        words.join(" ")
    }
}

/// Sends a call to a fresh door and compares the gist of the answer, and a piece of its text.
async fn check(call: &str, body: &str, expect: &str, says: &str) {
    let got = send(&door(&Arc::new(Fake::default()), &Options::default()), call, &[], body).await;
    assert_eq!(got.gist(), expect, "{call} {body}\n{}", got.text);
    assert!(got.text.contains(says), "{call} {body}\n{:?} is not in {}", says, got.text);
}

fn two_clients() -> Options {
    let keys = [("shop", "key-of-the-shop-1"), ("mall", "key-of-the-mall-1")];
    let keys = keys.map(|(name, key)| (name.to_owned(), key.to_owned()));
    Options { clients: Some(BTreeMap::from(keys)), ..Options::default() }
}

/// A good disbursement with some members replaced: `null` in `with` takes one out.
fn disbursement(with: &str) -> String {
    let mut body = serde_json::json!({
        "id": "r-1", "campaign": "spring", "payee": "ann", "amount": 88, "currency": "CNY"
    });
    let with: Value = serde_json::from_str(with).unwrap();
    for (name, value) in with.as_object().unwrap() {
        match value {
            Value::Null => drop(body.as_object_mut().unwrap().remove(name)),
            value => body[name] = value.clone(),
        }
    }
    body.to_string()
}
