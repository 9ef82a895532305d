//! What a request asked for, read once.

use super::RecordSettings;
use crate::exchange::Exchange;
use crate::http::head::RequestHead;
use crate::s3::address::{Address, HostCase};
use crate::s3::operation::{self, Class, Operation};
use crate::s3::query::{Query, Target};
use crate::s3::sts;
use crate::s3::table::Naming;

/// `api.name` where no operation can be named: the request's head was not seen, or no router knows the request.
pub(super) const UNKNOWN_NAME: &str = "Unknown";

/// See the module.
pub(super) struct Asked<'a> {
    pub(super) request: &'a RequestHead,
    pub(super) target: Target<'a>,
    pub(super) query: Query,
    pub(super) address: Address,
    pub(super) operation: Operation,
    sts_action: Option<&'static str>,
}

impl<'a> Asked<'a> {
    pub(super) fn read(request: &'a RequestHead, exchange: &Exchange, settings: &RecordSettings) -> Self {
        let target = Target::parse(&request.target);
        let query = Query::parse(target.query);
        let address = Address::of(&target, &request.headers, &settings.domains, HostCase::Ignored);
        let reading = operation::Reading {
            dialect: settings.dialect,
            domains: &settings.domains,
            reserved_prefixes: &settings.reserved_prefixes,
        };
        let operation = Operation::of(request, &target, &query, &address, reading);
        let is_sts = operation.class == Class::Sts;
        let sts_action = is_sts.then(|| sts::action(&query, &exchange.request_body)).flatten();
        Self { request, target, query, address, operation, sts_action }
    }

    pub(super) fn class(&self) -> Class {
        self.operation.class
    }

    /// The AWS name, or the action of STS.
    pub(super) fn name(&self) -> Option<&'static str> {
        self.operation.aws.or(self.sts_action)
    }

    /// What the dialect calls it. What its router would not serve under a name of its own goes by its AWS name.
    pub(super) fn api_name(&self) -> &'static str {
        match self.operation.class {
            Class::S3 | Class::Preflight | Class::Unknown => match self.operation.routed {
                Some(Naming::Api(name)) => name,
                Some(Naming::Refused(_)) | None => self.operation.aws.unwrap_or(UNKNOWN_NAME),
            },
            Class::Sts => self.sts_action.unwrap_or("STS"),
            Class::Health => "Health",
            Class::Metrics => "Metrics",
            Class::Admin => "Admin",
            Class::Console => "Console",
            Class::Internode => "Internode",
        }
    }

    /// Whether path and host mean a bucket and a key.
    pub(super) fn is_addressed(&self) -> bool {
        matches!(self.operation.class, Class::S3 | Class::Preflight | Class::Unknown)
            && self.operation.aws != Some("WriteGetObjectResponse")
    }
}
