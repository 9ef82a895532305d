//! boto3, awscli and curl: each a script in `tests/clients` that makes one round of calls and prints them.

use crate::call::Call;
use crate::gateway::{ACCESS_KEY, Gateway, REGION, SECRET_KEY};
use crate::need::{Need, tool};
use anyhow::Context as _;
use serde::de::DeserializeOwned;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// The SDK.
    Boto3,
    /// The command line, version 1.
    Awscli,
    /// curl with `--aws-sigv4`.
    Curl,
    /// The SDK, which over TLS sends checksums behind the bodies.
    Trailers,
    /// Every operation of the AWS model, signed in every way; it tells no calls.
    Operations,
    /// Every kind of secret; it tells those, see [`Script::secrets`].
    Secrets,
}

impl Script {
    /// Those that tell their calls, with or without TLS.
    pub const ALL: [Self; 3] = [Self::Boto3, Self::Awscli, Self::Curl];

    /// For the names of tests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boto3 => "boto3",
            Self::Awscli => "awscli",
            Self::Curl => "curl",
            Self::Trailers => "trailers",
            Self::Operations => "operations",
            Self::Secrets => "secrets",
        }
    }

    /// What it cannot run without.
    #[must_use]
    pub const fn needs(self) -> &'static [Need] {
        match self {
            Self::Boto3 | Self::Awscli | Self::Trailers | Self::Operations | Self::Secrets => &[Need::Python],
            Self::Curl => &[Need::Python, Need::Curl],
        }
    }

    /// One round against that gateway.
    ///
    /// # Errors
    /// The script fails (its own checks included), or prints what is no call.
    pub fn round(self, gateway: &Gateway) -> anyhow::Result<Vec<Call>> {
        self.told(gateway)
    }

    /// One round against that gateway; every secret that it sent or was given.
    ///
    /// # Errors
    /// The script fails, or prints what is no text.
    pub fn secrets(gateway: &Gateway) -> anyhow::Result<Vec<String>> {
        Self::Secrets.told(gateway)
    }

    fn told<T: DeserializeOwned>(self, gateway: &Gateway) -> anyhow::Result<Vec<T>> {
        let python = tool("S3AUDITD_PYTHON").map_err(|missing| anyhow::anyhow!(missing.reason().to_owned()))?;
        let mut command = Command::new(python);
        let mut trusted = tempfile::NamedTempFile::new()?;
        if let Some(authority) = &gateway.authority {
            trusted.write_all(authority.as_bytes())?;
            // The SDK's variable, and curl's.
            command.env("AWS_CA_BUNDLE", trusted.path()).env("CURL_CA_BUNDLE", trusted.path());
            // Over TLS the SDK would send bodies in chunks, with the checksum behind them. Large ones must be followed at the
            // pace of the upload, which an agent on a busy machine cannot always do (docs/tls.md).
            let checksums = if self == Self::Trailers { "when_supported" } else { "when_required" };
            command.env("AWS_REQUEST_CHECKSUM_CALCULATION", checksums);
        }
        let output = command
            .arg("-B")
            .arg(self.path())
            .args(["--endpoint", &gateway.url(), "--region", REGION])
            .args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting the {} round", self.name()))?;
        anyhow::ensure!(
            output.status.success(),
            "the {} round against {} failed: {}\n{}",
            self.name(),
            gateway.name,
            output.status,
            String::from_utf8_lossy(&output.stderr),
        );
        let lines = String::from_utf8(output.stdout).context("what a script tells is UTF-8")?;
        lines
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not understood: {line}")))
            .collect()
    }

    fn path(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(format!("{}_calls.py", self.name()))
    }
}
