//! Splunk's HTTP Event Collector, as far as its documents say how it behaves: events, raw events, acknowledgements, health.

use super::rude::{Reply, Request, answer};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// How it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// The token is without.
    Off,
    /// An id is acknowledged when it is asked for so many times; before that the answer is `false`.
    After(usize),
    /// Always `false` for the first so many ids, `true` for later ones.
    NeverFirst(u64),
}

/// See the module. Give [`Splunk::answer`] to a rude webhook.
#[derive(Debug)]
pub struct Splunk {
    token: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    acks: Acks,
    /// Codes with their HTTP status for the next requests with records.
    script: Vec<(u16, u64)>,
    next_id: u64,
    asked: HashMap<u64, usize>,
}

impl Splunk {
    /// One that wants this Authorization.
    #[must_use]
    pub fn new(token: &str, acks: Acks) -> Self {
        let state = State { acks, script: Vec::new(), next_id: 0, asked: HashMap::new() };
        Self { token: token.to_owned(), state: Mutex::new(state) }
    }

    /// Answers the next requests with records so: HTTP status and code, last one first.
    #[must_use]
    pub fn script(self, script: &[(u16, u64)]) -> Self {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).script = script.to_vec();
        self
    }

    /// Switches acknowledgements.
    pub fn set_acks(&self, acks: Acks) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).acks = acks;
    }

    /// Its answer.
    pub fn answer(&self, request: &Request) -> Reply {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (method, target) = request.line().split_once(' ').unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if request.header("Authorization") != Some(&self.token) {
            return code(if request.header("Authorization").is_none() { (401, 2) } else { (403, 4) });
        }
        match (method, path.strip_prefix("/services/collector")) {
            ("GET", Some("/health")) => code((200, 17)),
            ("POST", Some("/ack")) => state.acknowledge(request, query),
            ("POST", Some("" | "/event" | "/raw")) => state.take(request, path),
            _ => answer(404, "", "{\"text\":\"The requested URL was not found on this server.\",\"code\":404}"),
        }
    }
}

impl State {
    fn take(&mut self, request: &Request, path: &str) -> Reply {
        if let Some(scripted) = self.script.pop() {
            return code(scripted);
        }
        let channel = request.header("X-Splunk-Request-Channel");
        if channel.is_none() && (self.acks != Acks::Off || path.ends_with("/raw")) {
            return code((400, 10));
        }
        if request.body.is_empty() {
            return code((400, 5));
        }
        if !path.ends_with("/raw") && events(request).is_none() {
            return code((400, 6));
        }
        if self.acks == Acks::Off {
            return code((200, 0));
        }
        let id = self.next_id;
        self.next_id += 1;
        answer(200, "", &json!({ "text": "Success", "code": 0, "ackId": id }).to_string())
    }

    fn acknowledge(&mut self, request: &Request, query: &str) -> Reply {
        if self.acks == Acks::Off {
            return code((400, 14));
        }
        if !query.contains("channel=") {
            return code((400, 10));
        }
        let question: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let ids = question.get("acks").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut told = serde_json::Map::new();
        for id in ids.iter().filter_map(Value::as_u64) {
            let asked = self.asked.entry(id).or_default();
            *asked += 1;
            let acknowledged = match self.acks {
                Acks::Off => false,
                Acks::After(times) => *asked >= times,
                Acks::NeverFirst(first) => id >= first,
            };
            told.insert(id.to_string(), Value::Bool(acknowledged && id < self.next_id));
        }
        answer(200, "", &json!({ "acks": told }).to_string())
    }
}

fn code((status, code): (u16, u64)) -> Reply {
    answer(status, "", &json!({ "text": "Whatever", "code": code }).to_string())
}

/// The envelopes in a request; None: they are none.
#[must_use]
pub fn events(request: &Request) -> Option<Vec<Value>> {
    let envelopes = serde_json::Deserializer::from_str(&request.body).into_iter::<Value>();
    let envelopes = envelopes.collect::<Result<Vec<_>, _>>().ok()?;
    envelopes.iter().all(|envelope| envelope.get("event").is_some()).then_some(envelopes)
}
