//! Metrics as Prometheus reads them: OpenMetrics 1.0, and nothing that the format does not allow.

use std::collections::{BTreeMap, BTreeSet};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The head and the body of what is answered to a request by HTTP/1.1.
pub async fn http(address: &str, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer, and then the end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// The metrics of a service at one moment.
pub struct Scrape {
    /// The values by names with labels, as they were written.
    pub samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads a text, and refuses what is no OpenMetrics.
    pub fn parse(text: &str) -> Self {
        let (mut families, mut samples) = (BTreeMap::<String, String>::new(), BTreeMap::new());
        let (mut family, mut described) = (String::new(), BTreeSet::new());
        let body = text.strip_suffix("# EOF\n").expect("its end");
        for line in body.lines() {
            if let Some(words) = line.strip_prefix("# ") {
                let [keyword, name, rest] = words.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
                assert!(described.insert((keyword.to_owned(), name.to_owned())), "said twice: {line}");
                name.clone_into(&mut family);
                match keyword {
                    "HELP" => assert!(rest.len() > 5, "no help: {line}"),
                    "TYPE" => {
                        assert!(["counter", "gauge", "histogram"].contains(&rest), "{line}");
                        families.insert(family.clone(), rest.to_owned());
                    }
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').map_or((series, None), |(name, rest)| (name, Some(rest)));
            let kind = families.get(&family).unwrap_or_else(|| panic!("no type: {line}"));
            let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("in another family: {line}"));
            let suffixes = match kind.as_str() {
                "counter" => &["_total"][..],
                "histogram" => &["_sum", "_count", "_bucket"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            if let Some(labels) = labels {
                labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}")).split("\",").for_each(|label| {
                    let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                    assert!(!name.is_empty() && !value.trim_end_matches('"').contains(['"', '\\']), "{line}");
                });
            }
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "said twice: {line}");
        }
        let scrape = Self { samples };
        scrape.check_histograms();
        scrape
    }

    /// Buckets only grow, and the last one has all.
    fn check_histograms(&self) {
        let mut buckets = BTreeMap::<_, Vec<_>>::new();
        for (series, count) in &self.samples {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let Some(name) = name.strip_suffix("_bucket") else { continue };
            let (bounds, labels): (Vec<_>, Vec<_>) =
                labels.trim_end_matches('}').split(',').partition(|label| label.starts_with("le="));
            let bound: f64 = bounds[0]["le=".len()..].trim_matches('"').parse().expect("a bound");
            buckets.entry((name, labels.join(","))).or_default().push((bound, *count));
        }
        for ((name, labels), mut buckets) in buckets {
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{name}{labels}: {buckets:?}");
            let count = self.samples[&format!("{name}_count{labels}")];
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name}{labels}");
        }
    }

    /// The sum of the samples of this name that have all these labels, such as `grpc_code="OK"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of_name = self.samples.iter().filter(|(series, _)| series.split('{').next() == Some(name));
        let found: Vec<_> = of_name.filter(|(series, _)| labels.iter().all(|label| series.contains(label))).collect();
        assert!(!found.is_empty(), "there is no {name} with {labels:?}");
        found.into_iter().map(|(_, value)| value).sum()
    }
}
