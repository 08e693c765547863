//! Version 2 of git's wire protocol (<https://git-scm.com/docs/gitprotocol-v2>): what a server
//! offers, `ls-refs` and `fetch`.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use git2::{ObjectFormat, Oid};
use workflows_core::{Error, ErrorKind, Result};

use super::pkt::{Packet, PacketReader, broken, put, put_delimiter, put_flush};
use crate::printable::printable;

const AGENT: &str = concat!("agent=workflows-scm/", env!("CARGO_PKG_VERSION"), "\n");

/// Servers ignore prefixes beyond some number and list everything; with more than this, all of
/// `refs/` is asked for and the rest left out here.
const MOST_PREFIXES: usize = 512;

/// The longest ref name that is taken note of.
const LONGEST_NAME: usize = 1_024;

/// What a server offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Advertisement {
    capabilities: BTreeMap<String, String>,
}

impl Advertisement {
    /// Reads the advertisement that opens a conversation.
    ///
    /// # Errors
    ///
    /// `Unsupported` when the server speaks an older version or has SHA-256 objects.
    pub(super) async fn read(packets: &mut PacketReader) -> Result<Self> {
        let mut first = text_of(packets.expect().await?)?;
        if first.starts_with("# service=") {
            // Smart HTTP names the service, ended by a flush, before anything else.
            while packets.expect().await? != Packet::Flush {}
            first = text_of(packets.expect().await?)?;
        }
        if first != "version 2" {
            fail_on_error_line(&first)?;
            return Err(old_version());
        }
        let mut capabilities = BTreeMap::new();
        loop {
            match packets.expect().await? {
                Packet::Flush => break,
                packet => {
                    let line = text_of(packet)?;
                    let (name, value) = line.split_once('=').unwrap_or((&line, ""));
                    capabilities.insert(name.to_owned(), value.to_owned());
                    if capabilities.len() > 256 {
                        return Err(broken("it advertises hundreds of capabilities"));
                    }
                }
            }
        }
        let advertisement = Self { capabilities };
        match advertisement.capabilities.get("object-format").map(String::as_str) {
            None | Some("sha1") => Ok(advertisement),
            Some(other) => Err(Error::unsupported(
                super::REACH,
                format!("the repository's objects are named by {other:.20}; only sha1 can be read"),
            )),
        }
    }

    fn has(&self, command: &str, feature: &str) -> bool {
        self.capabilities
            .get(command)
            .is_some_and(|features| features.split(' ').any(|offered| offered == feature))
    }

    /// Whether a fetch can leave out trees and files.
    pub(super) fn filters(&self) -> bool {
        self.has("fetch", "filter")
    }

    fn begin(&self, command: &str) -> Result<Vec<u8>> {
        if !self.capabilities.contains_key(command) {
            return Err(Error::unsupported(
                super::REACH,
                format!("the server does not offer the command {command}"),
            ));
        }
        let mut out = Vec::new();
        put(&mut out, &format!("command={command}\n"));
        if self.capabilities.contains_key("agent") {
            put(&mut out, AGENT);
        }
        if self.capabilities.contains_key("object-format") {
            put(&mut out, "object-format=sha1\n");
        }
        put_delimiter(&mut out);
        Ok(out)
    }

    /// The request that lists refs.
    pub(super) fn ls_refs(&self, prefixes: &[Arc<str>]) -> Result<Vec<u8>> {
        let mut out = self.begin("ls-refs")?;
        put(&mut out, "peel\n");
        put(&mut out, "symrefs\n");
        if self.has("ls-refs", "unborn") {
            put(&mut out, "unborn\n");
        }
        if prefixes.len() > MOST_PREFIXES {
            put(&mut out, "ref-prefix refs/\n");
        } else {
            for prefix in prefixes {
                put(&mut out, &format!("ref-prefix {prefix}\n"));
            }
        }
        put_flush(&mut out);
        Ok(out)
    }

    /// The request that fetches objects.
    pub(super) fn fetch(&self, fetch: &Fetch) -> Result<Vec<u8>> {
        let mut out = self.begin("fetch")?;
        put(&mut out, "ofs-delta\n");
        put(&mut out, "no-progress\n");
        if let (Some(filter), true) = (fetch.filter, self.filters()) {
            put(&mut out, &format!("filter {filter}\n"));
        }
        if let (Some(depth), true) = (fetch.depth, self.has("fetch", "shallow")) {
            put(&mut out, &format!("deepen {depth}\n"));
        }
        for id in &fetch.wants {
            put(&mut out, &format!("want {id}\n"));
        }
        for id in &fetch.haves {
            put(&mut out, &format!("have {id}\n"));
        }
        if fetch.done {
            put(&mut out, "done\n");
        }
        put_flush(&mut out);
        Ok(out)
    }
}

/// What to fetch.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetch {
    pub(super) wants: Vec<Oid>,
    /// What is there already: the server leaves out all that is reachable from it.
    pub(super) haves: Vec<Oid>,
    /// How many generations of commits; all, when `None` or not offered.
    pub(super) depth: Option<u32>,
    /// What to leave out, where that is offered.
    pub(super) filter: Option<&'static str>,
    /// Whether the pack shall come without a further word about what is there.
    pub(super) done: bool,
}

/// Leaves out the content of files.
pub(super) const NO_FILES: &str = "blob:none";
/// Leaves out all but commits.
pub(super) const COMMITS_ONLY: &str = "tree:0";

/// A ref as a server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedRef {
    pub(super) name: String,
    /// The object; `None` when the ref is there but points at a branch that is not born yet.
    pub(super) id: Option<Oid>,
    /// What an annotated tag marks in the end.
    pub(super) peeled: Option<Oid>,
    /// The ref that it is another name of.
    pub(super) target: Option<String>,
}

/// Reads the answer to `ls-refs`: at most `most` refs and `most_bytes` bytes. Names that no ref can
/// have are left out.
pub(super) async fn read_refs(
    packets: &mut PacketReader,
    most: usize,
    most_bytes: usize,
) -> Result<Vec<ListedRef>> {
    let mut refs = Vec::new();
    let mut bytes = 0_usize;
    loop {
        let line = match packets.expect().await? {
            Packet::Flush => return Ok(refs),
            Packet::Data(line) => line,
            Packet::Delimiter | Packet::ResponseEnd => {
                return Err(broken("a list of refs has sections"));
            }
        };
        bytes = bytes.saturating_add(line.len());
        if refs.len() >= most || bytes > most_bytes {
            return Err(Error::invalid(
                super::REACH,
                format!(
                    "the server lists more than {most} refs or {most_bytes} bytes; narrow the \
                     branches and tags, or raise the driver's limit"
                ),
            ));
        }
        let Ok(line) = std::str::from_utf8(&line) else {
            continue;
        };
        let line = line.strip_suffix('\n').unwrap_or(line);
        fail_on_error_line(line)?;
        if let Some(listed) = parse_ref(line)? {
            refs.push(listed);
        }
    }
}

fn parse_ref(line: &str) -> Result<Option<ListedRef>> {
    let mut parts = line.split(' ');
    let (Some(id), Some(name)) = (parts.next(), parts.next()) else {
        return Err(broken("a line of the list of refs has no name"));
    };
    let id = if id == "unborn" { None } else { Some(parse_oid(id)?) };
    let mut listed = ListedRef { name: name.to_owned(), id, peeled: None, target: None };
    for attribute in parts {
        if let Some(peeled) = attribute.strip_prefix("peeled:") {
            listed.peeled = Some(parse_oid(peeled)?);
        } else if let Some(target) = attribute.strip_prefix("symref-target:") {
            listed.target = Some(target.to_owned());
        }
    }
    Ok(is_plausible(name).then_some(listed))
}

/// Whether git would let a ref have that name.
pub(super) fn is_plausible(name: &str) -> bool {
    name.len() <= LONGEST_NAME && git2::Reference::is_valid_name(name)
}

fn parse_oid(text: &str) -> Result<Oid> {
    if text.len() != 40 {
        return Err(broken("an object's name has not 40 digits"));
    }
    Oid::from_str_ext(text, ObjectFormat::Sha1)
        .map_err(|_| broken("an object's name is not hexadecimal"))
}

/// What a server says before the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// The pack follows; [`next_of_pack`] reads it.
    Pack,
    /// It wants to hear more before it sends a pack. `common`: it has what the request said was
    /// there.
    More {
        /// Whether it acknowledged any of it.
        common: bool,
    },
}

/// Reads the answer to `fetch` up to the pack.
pub(super) async fn read_reply(packets: &mut PacketReader) -> Result<Reply> {
    let mut common = false;
    let mut lines = 0_usize;
    loop {
        match packets.expect().await? {
            Packet::Delimiter => {}
            Packet::Flush | Packet::ResponseEnd => return Ok(Reply::More { common }),
            packet @ Packet::Data(_) => {
                let line = text_of(packet)?;
                fail_on_error_line(&line)?;
                if line == "packfile" {
                    return Ok(Reply::Pack);
                }
                common |= line.starts_with("ACK ");
                lines += 1;
                if lines > 1_000_000 {
                    return Err(broken("it says a million things before the pack"));
                }
            }
        }
    }
}

/// The next piece of the pack; `None` at its end.
pub(super) async fn next_of_pack(packets: &mut PacketReader) -> Result<Option<Bytes>> {
    loop {
        let mut data = match packets.expect().await? {
            Packet::Flush | Packet::ResponseEnd => return Ok(None),
            Packet::Delimiter => return Err(broken("something follows the pack")),
            Packet::Data(data) => data,
        };
        if data.is_empty() {
            return Err(broken("a packet of the pack has no band"));
        }
        let band = data.split_to(1);
        match band.first() {
            Some(1) => return Ok(Some(data)),
            Some(2) => {}
            Some(3) => return Err(server_error(&String::from_utf8_lossy(&data))),
            _ => return Err(broken("a packet of the pack is in an unknown band")),
        }
    }
}

fn text_of(packet: Packet) -> Result<String> {
    let Packet::Data(data) = packet else {
        return Err(broken("a line is missing"));
    };
    let text = String::from_utf8_lossy(&data);
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

fn fail_on_error_line(line: &str) -> Result<()> {
    match line.strip_prefix("ERR ") {
        Some(message) => Err(server_error(message)),
        None => Ok(()),
    }
}

/// What a server (git's own words, and those of the well-known hosts) says when it refuses.
pub(super) fn server_error(message: &str) -> Error {
    let lower = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let (kind, what) = if says(&["not our ref", "unadvertised object", "no such ref", "bad object"])
    {
        (ErrorKind::NotFound, "the repository does not have what was asked for")
    } else if says(&[
        "repository not found",
        "does not exist",
        "not appear to be a git repository",
        "could not find repository",
        "not found",
        "no such file",
    ]) {
        (ErrorKind::NotFound, "there is no such repository, or it may not be seen")
    } else if says(&["permission denied", "access denied", "not authorized", "not exported"]) {
        (ErrorKind::Denied, "the server refuses")
    } else {
        (ErrorKind::Transient, "the server reports an error")
    };
    Error::new(kind, super::REACH, what).with("server", printable(message))
}

fn old_version() -> Error {
    Error::unsupported(
        super::REACH,
        "the server does not speak version 2 of the git protocol; git 2.18 or later does (behind \
         sshd it needs `AcceptEnv GIT_PROTOCOL`, behind a web server the header Git-Protocol)",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{StreamExt, stream};

    use super::*;

    fn packets(lines: &[&str]) -> PacketReader {
        let mut bytes = Vec::new();
        for line in lines {
            match *line {
                "flush" => put_flush(&mut bytes),
                "delimiter" => put_delimiter(&mut bytes),
                line => put(&mut bytes, line),
            }
        }
        let stream = stream::iter([Ok(Bytes::from(bytes))]).boxed();
        PacketReader::new(stream, Duration::from_secs(5))
    }

    const ID: &str = "3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d";

    #[tokio::test]
    async fn only_version_2_with_sha1_is_spoken() {
        let smart_http = [
            "# service=git-upload-pack\n",
            "flush",
            "version 2\n",
            "fetch=shallow filter\n",
            "flush",
        ];
        let offered = Advertisement::read(&mut packets(&smart_http)).await.unwrap();
        assert!(offered.filters());
        let old = format!("{ID} HEAD\0multi_ack");
        for (lines, kind) in [
            (vec!["version 1\n"], ErrorKind::Unsupported),
            (vec![old.as_str()], ErrorKind::Unsupported),
            (vec!["version 2\n", "object-format=sha256\n", "flush"], ErrorKind::Unsupported),
            (vec!["ERR Repository not found.\n"], ErrorKind::NotFound),
            (vec!["version 2\n"], ErrorKind::Transient),
        ] {
            let error = Advertisement::read(&mut packets(&lines)).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[tokio::test]
    async fn a_listing_keeps_plausible_names_and_knows_tags_and_links() {
        let tag = format!("{ID} refs/tags/v1 peeled:{}\n", ID.replace('3', "4"));
        let lines = [
            &format!("{ID} HEAD symref-target:refs/heads/main\n"),
            &format!("{ID} refs/heads/a/b\u{e9}\n"),
            &tag,
            &format!("{ID} refs/heads/../../etc\n"),
            &format!("{ID} refs/heads/\u{1b}[2J\n"),
            "flush",
        ];
        let refs = read_refs(&mut packets(&lines), 10, 10_000).await.unwrap();
        let names: Vec<&str> = refs.iter().map(|listed| listed.name.as_str()).collect();
        assert_eq!(names, ["HEAD", "refs/heads/a/b\u{e9}", "refs/tags/v1"]);
        assert_eq!(refs[0].target.as_deref(), Some("refs/heads/main"));
        assert_eq!(refs[2].peeled.unwrap().to_string(), ID.replace('3', "4"));
    }

    #[tokio::test]
    async fn a_listing_without_end_is_refused() {
        let line = format!("{ID} refs/heads/x\n");
        let lines: Vec<&str> = std::iter::repeat_n(line.as_str(), 20).collect();
        for (most, most_bytes) in [(10, 100_000), (100, 300)] {
            let error = read_refs(&mut packets(&lines), most, most_bytes).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }

    #[tokio::test]
    async fn a_server_that_has_lost_a_commit_says_not_found() {
        let line = format!("ERR upload-pack: not our ref {ID}");
        let error = read_reply(&mut packets(&[&line])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_pack_comes_in_bands_and_an_error_within_it_is_told() {
        let lines = ["packfile\n", "\u{2}counting", "\u{1}PACK", "\u{3}out of memory\u{7}"];
        let mut packets = packets(&lines);
        assert_eq!(read_reply(&mut packets).await.unwrap(), Reply::Pack);
        assert_eq!(next_of_pack(&mut packets).await.unwrap().unwrap(), "PACK");
        let error = next_of_pack(&mut packets).await.unwrap_err();
        assert!(error.to_string().contains("out of memory"), "{error}");
    }
}
