//! Bars, as SVG.

use std::fmt::Write as _;

use crate::{plan, report, results::Results};

const BAR_HEIGHT: f64 = 16.0;
const LABEL_WIDTH: f64 = 170.0;
const BARS_WIDTH: f64 = 460.0;
const WIDTH: f64 = LABEL_WIDTH + BARS_WIDTH + 110.0;

/// One picture for each case: its first figure.
pub fn all(results: &Results) -> Vec<(String, String)> {
    let cases = report::CASES.iter().filter(|(case, _)| !results.contenders(case).is_empty());
    cases.map(|(case, title)| ((*case).to_owned(), bars(results, case, title))).collect()
}

fn color(contender: &str) -> &'static str {
    match contender {
        name if name.starts_with("p2p") => "#2a6f97",
        name if name.starts_with("rust-libp2p") => "#c8553d",
        name if name.starts_with("litep2p") => "#d9a441",
        _ => "#9aa5b1",
    }
}

fn bars(results: &Results, case: &str, title: &str) -> String {
    let Some(figure) = plan::figures(case).first() else { return String::new() };
    let mut rows = Vec::new();
    for (variant, runtime) in results.rows(case) {
        rows.push(None);
        for contender in report::ordered(results, case) {
            let of = results.spread(case, &variant, &runtime, &contender, figure.key);
            // Plain TCP would make the others too small to see.
            if let Some(spread) = of.filter(|_| contender != "tcp") {
                rows.push(Some((format!("{variant}, {runtime}"), contender, spread)));
            }
        }
    }
    let most = rows.iter().flatten().map(|(_, _, spread)| spread.max).fold(0.0, f64::max);
    let height = 40.0 + BAR_HEIGHT * 1.25 * rows.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"20\" font-size=\"14\">{title}: {}</text>\n",
        figure.title
    );
    let mut group = String::new();
    for (index, row) in rows.iter().enumerate() {
        let y = 40.0 + BAR_HEIGHT * 1.25 * index as f64;
        let Some((label, contender, spread)) = row else { continue };
        if *label != group {
            group.clone_from(label);
            let above = y - 4.0;
            let _ =
                writeln!(svg, "<text x=\"8\" y=\"{above}\" font-weight=\"bold\">{label}</text>");
        }
        let x = |value: f64| LABEL_WIDTH + BARS_WIDTH * value / most;
        let (baseline, middle) = (y + BAR_HEIGHT * 0.75, y + BAR_HEIGHT / 2.0);
        let _ = writeln!(
            svg,
            "<text x=\"16\" y=\"{baseline}\">{contender}</text>\
             <rect x=\"{LABEL_WIDTH}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" \
             fill=\"{}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"black\"/>\
             <text x=\"{:.1}\" y=\"{baseline}\">{}</text>",
            x(spread.median) - LABEL_WIDTH,
            color(contender),
            x(spread.min),
            x(spread.max),
            x(spread.max) + 6.0,
            report::number(spread.median),
        );
    }
    svg + "</svg>\n"
}
