//! What a request asked for, read once.

use super::RecordSettings;
use crate::exchange::{BodyStart, Exchange};
use crate::http::head::RequestHead;
use crate::s3::address::{Address, HostCase, Style};
use crate::s3::operation::{self, Ambiguity, Class, Operation};
use crate::s3::query::{Query, Target};
use crate::s3::settle::Told;
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

    /// Settles by the reply what the request leaves open, as far as the reply tells. A request for the list of buckets
    /// is always looked at: without domains, every listing in virtual-host style looks like one.
    pub(super) fn settle(&mut self, reply: &BodyStart, settings: &RecordSettings) {
        let is_open =
            |ambiguity: &Ambiguity| matches!(ambiguity, Ambiguity::SeveralSubresources | Ambiguity::UnknownHost);
        if !self.operation.ambiguities.iter().any(is_open) && self.operation.aws != Some("ListBuckets") {
            return;
        }
        let told = Told::by(reply);
        self.settle_host(&told, settings);
        self.settle_operation(&told);
    }

    /// The reply names the bucket: the path's, or the one that the host begins with.
    fn settle_host(&mut self, told: &Told, settings: &RecordSettings) {
        let is_list_of_buckets = self.address.bucket.is_empty() && told.answers("ListBuckets");
        if is_list_of_buckets || told.bucket.as_ref() == Some(&self.address.bucket) {
            self.operation.ambiguities.retain(|ambiguity| *ambiguity != Ambiguity::UnknownHost);
            return;
        }
        let is_doubtful =
            self.address.unknown_host || self.address.style == Style::Path && self.address.bucket.is_empty();
        let (Some(bucket), Some(host)) = (&told.bucket, self.address.host.as_deref().filter(|_| is_doubtful)) else {
            return;
        };
        let Some(domain) = host.strip_prefix(bucket.as_str()).and_then(|rest| rest.strip_prefix('.')) else { return };
        let domains = [domain.to_owned()];
        self.address = Address::of(&self.target, &self.request.headers, &domains, HostCase::Ignored);
        let reading = operation::Reading {
            dialect: settings.dialect,
            domains: &domains,
            reserved_prefixes: &settings.reserved_prefixes,
        };
        self.operation = Operation::of(self.request, &self.target, &self.query, &self.address, reading);
    }

    /// The reply is one to this operation, or to exactly one of the others that the request may be.
    fn settle_operation(&mut self, told: &Told) {
        let operation = &mut self.operation;
        if operation.aws == Some("ListBuckets") && told.answers("ListDirectoryBuckets") {
            operation.aws = Some("ListDirectoryBuckets");
        }
        let mut fitting =
            operation.aws.into_iter().chain(operation.others.iter().copied()).filter(|name| told.answers(name));
        if let (Some(only), None) = (fitting.next(), fitting.next()) {
            operation.aws = Some(only);
            operation.ambiguities.retain(|ambiguity| *ambiguity != Ambiguity::SeveralSubresources);
        }
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
