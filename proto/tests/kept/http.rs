//! The paths that `google.api.http` gives to calls: a REST edge can be made from them.

use std::collections::BTreeMap;
use std::fmt;

use prost_reflect::{Cardinality, Kind, MessageDescriptor, MethodDescriptor};

use crate::public;

/// How one call looks over HTTP.
pub(crate) struct Rule {
    verb: String,
    path: String,
    body: String,
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.verb.to_uppercase(), self.path)?;
        match self.body.is_empty() {
            true => Ok(()),
            false => write!(out, " with body {:?}", self.body),
        }
    }
}

impl Rule {
    /// The fields that stand in the path.
    fn variables(&self) -> impl Iterator<Item = &str> {
        let parts = self.path.split('{').skip(1);
        parts.map(|part| part.split(['=', '}']).next().unwrap())
    }

    /// The path as a router sees it: variables have no names.
    fn route(&self) -> String {
        let mut route = self.path.clone();
        for variable in self.variables() {
            route = route.replacen(variable, "", 1);
        }
        format!("{} {route}", self.verb)
    }
}

/// The rule of a call, if it has one.
pub(crate) fn rule(call: &MethodDescriptor) -> Option<Rule> {
    let http = call
        .parent_pool()
        .get_extension_by_name("google.api.http")?;
    let options = call.options();
    options.has_extension(&http).then_some(())?;
    let rule = options.get_extension(&http);
    let rule = rule.as_message()?;
    let verbs = ["get", "put", "post", "delete", "patch"];
    let verb = verbs
        .into_iter()
        .find(|verb| rule.has_field_by_name(verb))?;
    let text = |name| Some(rule.get_field_by_name(name)?.as_str()?.to_owned());
    Some(Rule {
        verb: verb.to_owned(),
        path: text(verb)?,
        body: text("body")?,
    })
}

#[test]
fn every_call_has_a_path_of_its_own() {
    let mut routes = BTreeMap::new();
    let pool = public();
    for call in pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
    {
        let name = call.full_name().to_owned();
        let rule = rule(&call).unwrap_or_else(|| panic!("{name} has no path"));
        let starts = match call.parent_file().package_name() {
            "stock.v1" => "/v1/",
            "stock.admin.v1" => "/admin/v1/",
            package => panic!("{package} is not for callers"),
        };
        assert!(rule.path.starts_with(starts), "{name}: {}", rule.path);
        for variable in rule.variables() {
            let bad = part(&call.input(), variable);
            assert_eq!(bad, None, "{name}: {variable}");
        }
        // What is asked for in a path's query has no lists of messages; what reads wait for is one
        // text there, as `header_text` writes it.
        match rule.verb.as_str() {
            "get" => {
                assert_eq!(rule.body, "", "{name} has a body");
                for field in call.input().fields().filter(|it| it.name() != "read") {
                    let is_list = field.cardinality() == Cardinality::Repeated;
                    let is_message = matches!(field.kind(), Kind::Message(_));
                    assert!(!(is_list && is_message), "{name}: {}", field.name());
                }
            }
            _ => assert_eq!(rule.body, "*", "{name}"),
        }
        if let Some(other) = routes.insert(rule.route(), name.clone()) {
            panic!("{name} and {other} have the same path");
        }
    }
}

/// What keeps a field, named by its path, from being part of a URL's path.
fn part(message: &MessageDescriptor, path: &str) -> Option<&'static str> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let Some(field) = message.get_field_by_name(first) else {
        return Some("is not there");
    };
    match field.kind() {
        _ if field.cardinality() == Cardinality::Repeated => Some("is a list"),
        Kind::Message(message) => part(&message, rest),
        Kind::String | Kind::Uint64 | Kind::Uint32 if rest.is_empty() => None,
        _ => Some("is no text and no number"),
    }
}
