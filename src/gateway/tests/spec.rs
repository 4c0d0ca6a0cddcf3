//! The OpenAPI document says what the router does.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::fake::Fake;
use super::{door, send};
use crate::gateway::Options;

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| match member {
            Value::String(target) if name == "$ref" => drop(found.insert(target.clone())),
            member => references(member, found),
        }),
        Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_route_is_in_the_spec_and_the_reverse() {
    let router = door(&Arc::new(Fake::default()), &Options::default());
    let spec = send(&router, "GET /openapi.json", &[], "").await.body;
    let methods = ["get", "put", "post", "delete", "patch"];
    for (path, item) in spec["paths"].as_object().unwrap() {
        // What the router answers is asked of the router itself, not of the table that it is made from.
        let concrete = path.replace("{id}", "x");
        for method in methods {
            let got = send(&router, &format!("{} {concrete}", method.to_uppercase()), &[], "").await;
            let told = item.get(method).is_some();
            assert_eq!(got.status != 405, told, "{method} {path}: {}", got.text);
            assert!(!got.text.contains("there is nothing at"), "{path}");
        }
    }
    for row in crate::gateway::routes::table() {
        assert!(spec["paths"].get(row.path).is_some(), "{} is not in the spec", row.path);
    }
}

#[tokio::test]
async fn every_reference_in_the_spec_leads_somewhere() {
    let router = door(&Arc::new(Fake::default()), &Options::default());
    let spec = send(&router, "GET /openapi.json", &[], "").await.body;
    let mut found = BTreeSet::new();
    references(&spec, &mut found);
    assert!(found.len() > 10);
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(spec.pointer(pointer).is_some(), "{target}");
    }
    let problem = &spec["paths"]["/v1/disbursements"]["post"]["responses"]["default"];
    assert!(problem["content"]["application/problem+json"].is_object());
    let disbursement = &spec["components"]["schemas"]["Disbursement"];
    assert_eq!(disbursement["additionalProperties"], false);
    assert_eq!(disbursement["properties"]["amount"]["maximum"], (1u64 << 53) - 1);
}
