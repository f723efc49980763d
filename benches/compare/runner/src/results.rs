//! Figures of several rounds.

use std::collections::BTreeMap;

use compare_peer::stats::Spread;
use serde_json::{Value, json};

/// Of what a figure is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub case: String,
    pub variant: String,
    pub runtime: String,
    pub contender: String,
    pub figure: String,
}

#[derive(Debug, Default)]
pub struct Results {
    values: BTreeMap<Key, Vec<f64>>,
}

impl Results {
    /// Adds the numbers of a client's line.
    pub fn add(&mut self, place: [&str; 4], line: &Value) {
        let [case, variant, runtime, contender] = place.map(str::to_owned);
        for (figure, value) in line.as_object().into_iter().flatten() {
            let Some(value) = value.as_f64() else { continue };
            let key = Key {
                case: case.clone(),
                variant: variant.clone(),
                runtime: runtime.clone(),
                contender: contender.clone(),
                figure: figure.clone(),
            };
            self.values.entry(key).or_default().push(value);
        }
    }

    pub fn spread(
        &self,
        case: &str,
        variant: &str,
        runtime: &str,
        contender: &str,
        figure: &str,
    ) -> Option<Spread> {
        let [case, variant, runtime, contender, figure] =
            [case, variant, runtime, contender, figure].map(str::to_owned);
        Spread::of(self.values.get(&Key { case, variant, runtime, contender, figure })?.clone())
    }

    /// The contenders of a row, in the order of their names.
    pub fn contenders(&self, case: &str) -> Vec<String> {
        let of = self.values.keys().filter(|key| key.case == case);
        let mut names: Vec<String> = of.map(|key| key.contender.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Variants and runtimes of a case; the default runtime first.
    pub fn rows(&self, case: &str) -> Vec<(String, String)> {
        let of = self.values.keys().filter(|key| key.case == case);
        let mut rows: Vec<_> = of.map(|key| (key.runtime.clone(), key.variant.clone())).collect();
        rows.sort_by_key(|(runtime, variant)| {
            let number: u32 = variant.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            (runtime != "multi", number)
        });
        rows.dedup();
        rows.into_iter().map(|(runtime, variant)| (variant, runtime)).collect()
    }

    pub fn json(&self) -> Value {
        let rows = self.values.iter().map(|(key, values)| {
            json!({
                "case": key.case, "variant": key.variant, "runtime": key.runtime,
                "contender": key.contender, "figure": key.figure, "values": values,
            })
        });
        rows.collect()
    }

    pub fn from_json(rows: &Value) -> Self {
        let mut values = BTreeMap::new();
        for row in rows.as_array().into_iter().flatten() {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let key = Key {
                case: text("case"),
                variant: text("variant"),
                runtime: text("runtime"),
                contender: text("contender"),
                figure: text("figure"),
            };
            let numbers = row["values"].as_array().into_iter().flatten();
            values.insert(key, numbers.filter_map(Value::as_f64).collect());
        }
        Self { values }
    }
}
