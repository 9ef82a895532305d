//! Seeds of the fuzz targets: the golden conversations of `rebuild`, in each target's own form.

use crate::process::workspace;
use std::fs;
use std::path::Path;

/// Writes them to `fuzz/seeds`, one folder a target.
pub(crate) fn write(home: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(workspace().join("rebuild/tests/golden"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        put(home, "pipeline", &name, &stream(&text))?;
        put(home, "replay", &name, conversation(&text).as_bytes())?;
        let sent: Vec<u8> = text.lines().filter_map(|line| line.strip_prefix("> ")).flat_map(unescape).collect();
        let head = String::from_utf8_lossy(&sent).replace(" HTTP/1.1\r\n", "\n").replace("\r\n", "\n");
        put(home, "naming", &name, format!("\0{head}ETag: \"e\"\n\n").as_bytes())?;
    }
    for (name, document) in [
        (
            "multi_delete",
            "<Delete><Object><Key>a&amp;b</Key><VersionId>v</VersionId></Object></Delete>\0<DeleteResult><Error><Key>a&amp;b</Key><Code>AccessDenied</Code></Error></DeleteResult>",
        ),
        ("error", "\0<?xml version=\"1.0\"?>\n<Error><Code>NoSuchKey</Code><Message>m</Message></Error>"),
        (
            "sts",
            "\0<R><Credentials><AccessKeyId>AK</AccessKeyId><SecretAccessKey>s</SecretAccessKey></Credentials></R>",
        ),
        (
            "entities",
            "<!DOCTYPE d [<!ENTITY a \"b\"><!ENTITY c \"&a;&a;\">]><Delete><Key>&c;<![CDATA[x]]></Key></Delete>\0<!-- c -->",
        ),
    ] {
        put(home, "xml", name, format!("\0{document}").as_bytes())?;
    }
    // A header of 112 bytes: kind, and a payload of three bytes.
    let mut sample = vec![0; 112];
    sample.extend(b"abc");
    for (at, value) in [(32, 3), (36, 3), (56, 1), (58, 1), (59, 2)] {
        if let Some(byte) = sample.get_mut(at) {
            *byte = value;
        }
    }
    put(home, "sample", "received", &sample)
}

fn put(home: &Path, target: &str, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = home.join("seeds").join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}

/// As `fuzz/lib.rs` reads samples: what, jump, length, bytes. A jump of 0x30 is none.
fn stream(text: &str) -> Vec<u8> {
    let mut stream = vec![0, 4, 0x30];
    for line in text.lines() {
        let (what, bytes) = match line.split_at_checked(2) {
            Some(("> ", rest)) => (0, unescape(rest)),
            Some(("< ", rest)) => (2, unescape(rest)),
            Some(("?>", rest)) => (16, unescape(rest)),
            Some(("?<", rest)) => (18, unescape(rest)),
            Some(("pe", _)) => (5, Vec::new()),
            Some(("ga", _)) => (6, Vec::new()),
            Some(("cl", _)) => (7, Vec::new()),
            _ => continue,
        };
        if matches!(what, 5..=7) {
            stream.extend([what, 0x31]);
            continue;
        }
        for piece in bytes.chunks(30_000) {
            stream.extend([what, 0x31]);
            stream.extend(u16::try_from(piece.len()).unwrap_or(0).to_le_bytes());
            if what < 16 {
                stream.extend(piece);
            }
        }
    }
    stream
}

/// As `docs/replay.md` has it.
fn conversation(text: &str) -> String {
    let mut lines = String::from("{\"connection\":\"1\",\"time_us\":0,\"event\":\"opened\"}\n");
    for line in text.lines() {
        let rest = match line.split_at_checked(2) {
            Some((side @ ("> " | "< "), rest)) => {
                let from = if side == "> " { "client" } else { "gateway" };
                let bytes: String = unescape(rest).into_iter().take(2000).map(char::from).collect();
                format!("\"from\":\"{from}\",\"bytes\":{}", serde_json::Value::String(bytes))
            }
            Some(("cl", _)) => "\"event\":\"closed\"".to_owned(),
            Some(("pe", _)) => "\"event\":\"client closed\"".to_owned(),
            Some(("ga", _)) => "\"event\":\"gateway closed\"".to_owned(),
            _ => continue,
        };
        lines.push_str(&format!("{{\"connection\":\"1\",\"time_us\":1,{rest}}}\n"));
    }
    lines
}

/// The escapes of the golden cases; `{unit*times}` at most 2,000 bytes long.
fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let after = rest.get(first.len_utf8()..).unwrap_or_default();
        let repeat = after.split_once('}').and_then(|(run, tail)| {
            let (unit, times) = run.rsplit_once('*')?;
            Some((unit, times.parse::<usize>().ok()?, tail))
        });
        rest = match (first, repeat, after.chars().next()) {
            ('{', Some((unit, times, tail)), _) => {
                let unit = unescape(unit);
                bytes.extend(unit.repeat(times.min(2000 / unit.len().max(1))));
                tail
            }
            ('\\', _, Some('x')) => {
                bytes.extend(after.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok()));
                after.get(3..).unwrap_or_default()
            }
            ('\\', _, Some(escaped)) => {
                let byte = match escaped {
                    'r' => '\r',
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                };
                bytes.extend(byte.to_string().bytes());
                after.get(escaped.len_utf8()..).unwrap_or_default()
            }
            _ => {
                bytes.extend(first.to_string().bytes());
                after
            }
        };
    }
    bytes
}
