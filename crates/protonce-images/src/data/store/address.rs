//! What is typed for objects, taken apart.

use object_store::path::Path as Key;
use url::Url;

use super::{StoreError, StoreProblem};
use crate::data::argument::without_secrets;
use crate::data::shards::braces;

/// Who keeps objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    S3,
    Google,
    Azure,
    Web,
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub service: Service,
    /// The address of its bucket; the whole address of a file on a web server, with its query.
    pub store: String,
    /// Empty on a web server.
    pub key: Key,
    /// What messages call it: without what gives access.
    pub name: String,
}

/// What an argument asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// One object.
    One(Address),
    /// All of these.
    Several(Vec<Address>),
    /// Those of a bucket that match one of the patterns.
    Pattern { bucket: Address, patterns: Vec<String> },
    /// The archives or tables below the bucket's key.
    Folder(Address),
}

impl Address {
    fn in_bucket(service: Service, bucket: &str, key: &str) -> Result<Address, StoreError> {
        let name = if key.is_empty() { bucket.to_owned() } else { format!("{bucket}/{key}") };
        let Ok(key) = Key::parse(key) else {
            let problem = StoreProblem::Address("a key has no empty parts");
            return Err(StoreError { address: name, problem });
        };
        Ok(Address { service, store: bucket.to_owned(), key, name })
    }

    /// The object called `key` in the same bucket.
    pub fn sibling(&self, key: Key) -> Address {
        let name = format!("{}/{key}", self.store);
        Address { service: self.service, store: self.store.clone(), key, name }
    }

    /// What tells the object from others, whoever asks for it: signatures in it come and go.
    pub fn identity(&self) -> &str {
        let is_signature = |query: &str| {
            let query = query.to_ascii_lowercase();
            ["signature=", "sig=", "token="].iter().any(|key| query.contains(key))
        };
        match self.store.split_once('?') {
            _ if self.service != Service::Web => &self.name,
            Some((_, query)) if is_signature(query) => &self.name,
            _ => &self.store,
        }
    }
}

/// Takes apart an address without its `#SUBFOLDER`.
pub(super) fn parse(argument: &str) -> Result<Asked, StoreError> {
    let wrong = |problem| {
        let address = without_secrets(argument).into_owned();
        Err(StoreError { address, problem })
    };
    let Some((scheme, rest)) = argument.split_once("://") else {
        return wrong(StoreProblem::Address("it has no scheme"));
    };
    let service = match scheme.to_ascii_lowercase().as_str() {
        "s3" => Service::S3,
        "gs" => Service::Google,
        "az" => Service::Azure,
        "http" | "https" => return web(argument),
        _ => return wrong(StoreProblem::Address("its scheme is unknown")),
    };
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return wrong(StoreProblem::Address("it names no bucket"));
    }
    let bucket = format!("{scheme}://{bucket}");
    if key.is_empty() || key.ends_with('/') {
        return Ok(Asked::Folder(Address::in_bucket(service, &bucket, key.trim_end_matches('/'))?));
    }
    let keys = braces(key);
    if keys.iter().any(|key| key.contains(['*', '?', '['])) {
        let bucket = Address::in_bucket(service, &bucket, "")?;
        return Ok(Asked::Pattern { bucket, patterns: keys });
    }
    let object = |key: &String| Address::in_bucket(service, &bucket, key);
    match &keys[..] {
        [key] => Ok(Asked::One(object(key)?)),
        keys => Ok(Asked::Several(keys.iter().map(object).collect::<Result<_, _>>()?)),
    }
}

/// The same for a web server.
fn web(argument: &str) -> Result<Asked, StoreError> {
    let (path, query) = match argument.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (argument, String::new()),
    };
    let wrong = |problem| StoreError { address: without_secrets(argument).into_owned(), problem };
    if path.contains('*') {
        return Err(wrong(StoreProblem::NoListing));
    }
    let file = |path: &String| {
        let Ok(url) = Url::parse(&format!("{path}{query}")) else {
            return Err(wrong(StoreProblem::Address("it is no address")));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(StoreProblem::Address("it has a user or password in it")));
        }
        let name = without_secrets(path).into_owned();
        let (store, key) = (url.to_string(), Key::default());
        Ok(Address { service: Service::Web, store, key, name })
    };
    match &braces(path)[..] {
        [path] => Ok(Asked::One(file(path)?)),
        paths => Ok(Asked::Several(paths.iter().map(file).collect::<Result<_, _>>()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(argument: &str) -> Vec<String> {
        match parse(argument).unwrap() {
            Asked::One(address) => vec![address.name],
            Asked::Several(addresses) => addresses.into_iter().map(|a| a.name).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn braces_spell_out_objects() {
        assert_eq!(names("s3://b/a/x.tar"), ["s3://b/a/x.tar"]);
        assert_eq!(
            names("gs://b/x-{8..10}.tar"),
            ["gs://b/x-8.tar", "gs://b/x-9.tar", "gs://b/x-10.tar"]
        );
        assert_eq!(names("https://h/{a,b}.tar?t=1"), ["https://h/a.tar", "https://h/b.tar"]);
    }

    #[test]
    fn only_buckets_have_patterns_and_folders() {
        for (argument, key) in [("s3://b", ""), ("az://b/", ""), ("gs://b/a/c/", "a/c")] {
            let Asked::Folder(address) = parse(argument).unwrap() else { panic!("{argument}") };
            assert_eq!(address.key.as_ref(), key, "{argument}");
        }
        let asked = parse("s3://b/{a,b}/*.tar").unwrap();
        assert!(
            matches!(asked, Asked::Pattern { patterns, .. } if patterns == ["a/*.tar", "b/*.tar"])
        );
        assert_eq!(parse("http://h/*.tar").unwrap_err().problem, StoreProblem::NoListing);
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_secrets() {
        for argument in
            ["ftp://h/x.tar", "s3:///x.tar", "s3://b/a//x.tar", "http://u:secret@h/x.tar"]
        {
            let error = parse(argument).unwrap_err().to_string();
            assert!(error.contains("expected s3://BUCKET/KEY"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_object_is_the_same_whatever_its_signature_is() {
        let identity = |argument: &str| match parse(argument).unwrap() {
            Asked::One(address) => address.identity().to_owned(),
            other => panic!("{other:?}"),
        };
        let signed = identity("https://h/x.tar?X-Amz-Signature=1");
        assert_eq!(signed, identity("https://h/x.tar?X-Amz-Signature=2"));
        assert_eq!(signed, identity("https://h/x.tar?sv=1&sig=abc"));
        assert_ne!(identity("https://h/x?id=1"), identity("https://h/x?id=2"));
    }
}
