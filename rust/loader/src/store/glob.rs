//! Globs in the addresses of object stores, which can list their names; servers cannot.

use super::address::{Place, resolve};
use super::failure::{Attempts, Failure, FetchError};
use super::{Inner, object, shown};

impl Inner {
    /// The addresses that a pattern matches, sorted.
    pub(super) async fn glob(&self, pattern: &str) -> Result<Vec<String>, FetchError> {
        let address = shown(pattern);
        let failed = |failure: Failure, attempts| failure.into_error(&address, attempts);
        let place = resolve(pattern, &self.hub)
            .map_err(|error| failed(Failure::terminal(error.rule), 0))?;
        let Place::Object {
            scheme,
            bucket,
            path,
        } = place
        else {
            let rule = "only object stores (s3, gs, az) can be searched with * ? [; elsewhere name the shards, with braces if \
                        they are many";
            return Err(failed(Failure::terminal(rule), 0));
        };
        let (prefix, matcher) =
            parts(&path).map_err(|error| failed(Failure::terminal(error.to_string()), 0))?;
        let store = self
            .object_store(scheme, &bucket)
            .map_err(|failure| failed(failure, 0))?;
        let mut attempts = Attempts::new(self.config.retries);
        let names = loop {
            let failure = match object::list(store.as_ref(), prefix).await {
                Ok(names) => break names,
                Err(failure) => failure,
            };
            let pause = attempts.failed(failure, false);
            let pause = pause.map_err(|failure| failed(failure, attempts.made))?;
            tokio::time::sleep(pause).await;
        };
        let begin = pattern.len() - path.len();
        let found = names.iter().filter(|name| matches(&matcher, name));
        Ok(found
            .map(|name| format!("{}{name}", &pattern[..begin]))
            .collect())
    }
}

/// The folder in which a glob's names lie, and the glob.
fn parts(path: &str) -> Result<(&str, glob::Pattern), glob::PatternError> {
    let wild = path.find(['*', '?', '[']).unwrap_or(path.len());
    let prefix = path[..wild].rfind('/').map_or("", |slash| &path[..slash]);
    Ok((prefix, glob::Pattern::new(path)?))
}

fn matches(pattern: &glob::Pattern, name: &str) -> bool {
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::default()
    };
    pattern.matches_with(name, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_is_searched_for_in_its_folder() {
        for (path, prefix) in [("a/b/c-*.tar", "a/b"), ("*.tar", ""), ("a/*/c.tar", "a")] {
            assert_eq!(parts(path).unwrap().0, prefix);
        }
        let matcher = parts("a/c-*.tar").unwrap().1;
        for (name, expected) in [
            ("a/c-1.tar", true),
            ("a/c-.tar", true),
            ("a/c-1/2.tar", false),
            ("b/c-1.tar", false),
        ] {
            assert_eq!(matches(&matcher, name), expected, "{name}");
        }
        assert!(parts("a/[").is_err());
    }
}
