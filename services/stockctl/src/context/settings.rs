//! What commands go by: of each value, what was said in the place that comes first.

use serde_json::{Value, json};

use super::file::{Context, ContextFile};
use crate::columns::Columns;
use crate::failure::Failure;
use crate::options::{Given, Options, Output, Place};

/// Where the cluster is if nobody says.
const ENDPOINT: &str = "http://127.0.0.1:7401";

/// What commands go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The context's name, where there is one.
    pub(crate) context: Option<Setting<String>>,
    pub(crate) endpoints: Setting<Vec<String>>,
    /// None: any.
    pub(crate) cluster: Setting<Option<String>>,
    pub(crate) output: Setting<Output>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) from: Source,
}

/// Where a value is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Flag,
    Environment,
    Context,
    /// The file says which context is current.
    Current,
    Default,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::Context => "context",
            Self::Current => "current",
            Self::Default => "default",
        }
    }
}

impl From<Place> for Source {
    fn from(place: Place) -> Self {
        match place {
            Place::CommandLine => Self::Flag,
            Place::Environment => Self::Environment,
        }
    }
}

impl Settings {
    /// A flag comes before a context that a flag names, that before the environment, and that
    /// before any other context.
    ///
    /// Fails with [`Failure::Usage`] where the context that is meant is not there.
    pub(crate) fn of(options: &Options, given: Given, file: &ContextFile) -> Result<Self, Failure> {
        let named = options.context.as_deref().zip(given.context);
        let meant = match named {
            Some((name, place)) => Some((name, file.named(name)?, place.into())),
            None => {
                let current = file.current()?;
                current.map(|(name, context)| (name, context, Source::Current))
            }
        };
        let context = meant.map(|(_, context, _)| context);
        let is_flagged = given.context == Some(Place::CommandLine);
        // A comma at the end names nothing.
        let endpoints = options.endpoint.iter().map(|endpoint| endpoint.trim());
        let endpoints = endpoints.filter(|endpoint| !endpoint.is_empty());
        let endpoints = endpoints.map(str::to_owned).collect();
        let kept = context.map(|it| it.endpoints.clone());
        let kept = kept.filter(|endpoints| !endpoints.is_empty());
        let cluster = options.cluster.clone().filter(|name| !name.is_empty());
        let kept_cluster = context.and_then(|it| it.cluster.clone());
        let first = Order { is_flagged };
        Ok(Self {
            context: meant.map(|(name, _, from)| Setting {
                value: name.to_owned(),
                from,
            }),
            endpoints: first.of(given.endpoint, endpoints, kept, vec![ENDPOINT.to_owned()]),
            cluster: first.of(given.cluster, cluster, kept_cluster.map(Some), None),
            output: first.of(
                given.output,
                options.output.unwrap_or(Output::Table),
                context.and_then(|it| it.output),
                Output::Table,
            ),
        })
    }

    pub(crate) fn value(&self) -> Value {
        let setting = |value: Value, from: Source| json!({ "value": value, "from": from.name() });
        json!({
            "context": self.context.as_ref().map(|it| setting(json!(it.value), it.from)),
            "endpoints": setting(json!(self.endpoints.value), self.endpoints.from),
            "cluster": setting(json!(self.cluster.value), self.cluster.from),
            "output": setting(json!(self.output.value.name()), self.output.from),
        })
    }

    pub(crate) fn table(&self) -> String {
        let mut table = Columns::new(&["SETTING", "VALUE", "FROM"]);
        let mut row = |name: &str, value: &str, from: &str| {
            table.row([name, value, from].map(str::to_owned));
        };
        match &self.context {
            Some(context) => row("context", &context.value, context.from.name()),
            None => row("context", "none", "-"),
        }
        let endpoints = self.endpoints.value.join(", ");
        row("endpoints", &endpoints, self.endpoints.from.name());
        let cluster = self.cluster.value.as_deref().unwrap_or("any");
        row("cluster", cluster, self.cluster.from.name());
        row("output", self.output.value.name(), self.output.from.name());
        table.finish()
    }
}

/// Which of two that say something is heard.
struct Order {
    /// The context was named by a flag.
    is_flagged: bool,
}

impl Order {
    fn of<T>(&self, place: Option<Place>, given: T, kept: Option<T>, usual: T) -> Setting<T> {
        match (place, kept) {
            (Some(Place::Environment), Some(value)) if self.is_flagged => Setting {
                value,
                from: Source::Context,
            },
            (Some(place), _) => Setting {
                value: given,
                from: place.into(),
            },
            (None, Some(value)) => Setting {
                value,
                from: Source::Context,
            },
            (None, None) => Setting {
                value: usual,
                from: Source::Default,
            },
        }
    }
}

/// Contexts as lists show them.
pub(super) fn context_row(name: &str, context: &Context, is_current: bool) -> [String; 5] {
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let endpoints = context.endpoints.join(", ");
    [
        if is_current { "*" } else { "" }.to_owned(),
        name.to_owned(),
        or_dash(Some(endpoints.as_str()).filter(|text| !text.is_empty())),
        or_dash(context.cluster.as_deref()),
        or_dash(context.output.map(Output::name)),
    ]
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::args::Cli;

    const FILE: &str = "\
current = \"a\"

[contexts.a]
endpoints = [\"http://a:1\"]
cluster = \"cluster-a\"
output = \"json\"

[contexts.b]
cluster = \"cluster-b\"
";

    fn resolve(line: &str, file: &str) -> Result<Settings, Failure> {
        let command = Cli::command().mut_args(|arg| arg.env(None::<&str>));
        let matches = command.try_get_matches_from(line.split(' '));
        let matches = matches.expect("it parses");
        let cli = Cli::from_arg_matches(&matches).expect("it parses");
        let file = ContextFile::parse("FILE".into(), file.to_owned());
        Settings::of(
            &cli.options,
            Given::in_matches(&matches),
            &file.expect("it parses"),
        )
    }

    fn endpoint_of(settings: &Settings) -> (&str, Source) {
        let endpoints = &settings.endpoints;
        (endpoints.value[0].as_str(), endpoints.from)
    }

    #[test]
    fn each_value_is_of_the_place_that_comes_first() {
        let settings = resolve("stockctl audit", FILE).expect("a is there");
        assert_eq!(endpoint_of(&settings), ("http://a:1", Source::Context));
        assert_eq!(settings.output.value, Output::Json);
        assert_eq!(settings.cluster.value.as_deref(), Some("cluster-a"));

        let line = "stockctl audit --endpoint http://f:1, -o table --cluster=";
        let settings = resolve(line, FILE).expect("a is there");
        assert_eq!(settings.endpoints.value, ["http://f:1"]);
        assert_eq!(settings.output.value, Output::Table);
        assert_eq!(settings.cluster.value, None, "any");
        assert_eq!(settings.cluster.from, Source::Flag);

        let settings = resolve("stockctl audit --context b", FILE).expect("b is there");
        assert_eq!(endpoint_of(&settings), (ENDPOINT, Source::Default));
        assert_eq!(settings.cluster.value.as_deref(), Some("cluster-b"));
        assert!(resolve("stockctl audit --context c", FILE).is_err());

        let settings = resolve("stockctl audit", "").expect("no context is meant");
        assert_eq!(endpoint_of(&settings), (ENDPOINT, Source::Default));
        assert_eq!((settings.context, settings.cluster.value), (None, None));
        assert_eq!(settings.output.value, Output::Table);
    }

    #[test]
    fn the_environment_comes_before_a_context_but_for_one_that_a_flag_names() {
        let settings = |context: Option<Place>| {
            let options = Options {
                endpoint: vec!["http://e:1".into()],
                cluster: None,
                context: context.map(|_| "a".into()),
                output: None,
                timeout: std::time::Duration::ZERO,
            };
            let given = Given {
                endpoint: Some(Place::Environment),
                context,
                ..Given::default()
            };
            let file = ContextFile::parse("FILE".into(), FILE.to_owned()).expect("it parses");
            Settings::of(&options, given, &file).expect("a is there")
        };
        for context in [None, Some(Place::Environment)] {
            let settings = settings(context);
            assert_eq!(endpoint_of(&settings), ("http://e:1", Source::Environment));
            assert_eq!(settings.cluster.value.as_deref(), Some("cluster-a"));
        }
        let settings = settings(Some(Place::CommandLine));
        assert_eq!(endpoint_of(&settings), ("http://a:1", Source::Context));
    }
}
