//! The report: one file that shows everything, to eyes, fingers and screen readers.

use std::path::{Path, PathBuf};

use crate::browser::Browser;
use crate::images::{picture, write_classes};
use crate::{protonce, refuse, stderr, succeed, tiny_pretrain};

/// Names that would do harm as HTML, in a script, in a style or in a shell.
pub const HOSTILE: [&str; 3] = [
    "</script><script>window.hacked=1</script>",
    "\"><img src=x onerror=window.hacked=2>",
    "<!--{{script}}`${window.hacked=3}`';alert(4)//",
];

/// A small run over images in classes, with an evaluation.
fn small_run(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    write_classes(&data, &["cats", "dogs", "frogs"], 20);
    let (data, run) = (data.to_str().unwrap(), folder.join("run"));
    let more = ["--epochs", "4", "--log-every", "2", "--eval-train", data, "--eval-test", data];
    succeed(tiny_pretrain(data, &run, &more));
    run
}

fn report(run: &Path, more: &[&str]) -> PathBuf {
    let out = run.join("report.html");
    let output = succeed(protonce(&[&["report", run.to_str().unwrap()], more].concat()));
    assert!(stderr(&output).contains("report.html"));
    out
}

#[test]
fn a_report_is_one_file_that_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let run = small_run(folder.path());
    let output = succeed(protonce(&["report", run.to_str().unwrap(), "--json", "--quiet"]));
    assert_eq!(stderr(&output), "");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["thumbnails"], &summary["map"]), (&60.into(), &60.into()));
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert_eq!(summary["bytes"], page.len());
    assert!(page.len() < 15_000_000);
    let page = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing is fetched");
    // Images that moved: without them it is still a report; with others it is none.
    std::fs::rename(folder.path().join("data"), folder.path().join("moved")).unwrap();
    let output = succeed(protonce(&["report", run.to_str().unwrap()]));
    assert!(stderr(&output).contains("no pictures") && stderr(&output).contains("--data"));
    let moved = folder.path().join("moved");
    report(&run, &["--data", moved.to_str().unwrap()]);
    std::fs::remove_file(moved.join("cats/003.png")).unwrap();
    let before = std::fs::read(run.join("report.html")).unwrap();
    let arguments = ["report", run.to_str().unwrap(), "--data", moved.to_str().unwrap()];
    let text = refuse(protonce(&arguments), 1);
    assert!(text.contains("not what the run was made of"), "{text}");
    assert_eq!(std::fs::read(run.join("report.html")).unwrap(), before);
}

#[test]
fn a_report_of_no_run_or_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert!(refuse(protonce(&["report", path]), 1).contains("no run"));
    let run = small_run(folder.path());
    let newest = run.join("prototypes/epoch-0004.safetensors");
    let whole = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &whole[..whole.len() - 9]).unwrap();
    let text = refuse(protonce(&["report", run.to_str().unwrap()]), 1);
    assert!(text.contains("epoch-0004.safetensors") && text.contains("not a whole"), "{text}");
}

#[test]
fn a_moco_run_reports_its_training() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a"], 20);
    let run = folder.path().join("run");
    let more = ["--method", "moco", "--epochs", "2"];
    succeed(tiny_pretrain(data.to_str().unwrap(), &run, &more));
    let page = report(&run, &[]);
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&format!("file://{}", page.display()));
    assert_eq!(browser.number("document.querySelectorAll('#training svg').length"), 7.0);
    assert_eq!(browser.value("document.querySelector('#prototypes')"), serde_json::Value::Null);
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn a_person_finds_everything_in_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let page = report(&small_run(folder.path()), &[]);
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&format!("file://{}", page.display()));

    // Every section is there, linked to and drawn.
    for section in
        ["training", "prototypes", "map", "change", "labels", "images", "evaluations", "settings"]
    {
        browser.until(&format!("document.querySelector('#{section} h2') !== null"));
        browser.until(&format!("document.querySelector('#nav a[href=\"#{section}\"]') !== null"));
    }
    browser.until("document.querySelectorAll('#training .curve').length >= 8");
    browser.until("document.querySelectorAll('.barmark').length > 8");
    browser.until("document.querySelectorAll('#labels .heat rect').length > 4");
    browser.until("document.querySelectorAll('#evaluations tbody:not(.floors) tr').length === 4");
    // Beside them what needs no training: the untrained network, colours, pixels.
    browser.until("document.querySelectorAll('#evaluations .floors tr').length === 3");
    assert!(
        browser
            .text("document.querySelector('.command code').textContent")
            .starts_with("protonce pretrain ")
    );
    browser.picture("small-light", true);

    // Values can be read off curves, with the pointer and with keys.
    browser.hover("#training .chart svg");
    browser.until(
        "!tip.hidden && tip.textContent.includes('epoch') && tip.textContent.includes('instance')",
    );
    browser.value("document.querySelector('#training .chart svg').focus()");
    let before = browser.text("tip.textContent");
    for _ in 0..3 {
        browser.key("ArrowLeft");
    }
    browser.until(&format!("tip.textContent !== {before:?}"));

    // Pictures are the images: the class's colour is in the thumbnail.
    browser.hover("#prototypes .prototype .tile");
    browser.until(
        "!tip.hidden && tip.querySelector('.tile').style.backgroundImage.startsWith('url(\"blob:')",
    );
    browser.until("/\\d{3}\\.png/.test(tip.textContent)");

    // From coarse to fine and back.
    browser.click("#prototypes .controls + div + p + .gallery .prototype");
    browser.until("document.querySelectorAll('.walk .pictures .tile').length > 3");
    browser.until("document.querySelector('.walk .crumbs').textContent.includes('of 4')");
    browser.until("document.activeElement === document.querySelector('.walk')");
    browser.picture("small-walk", false);
    browser.click(".walk .children .prototype");
    browser.until("document.querySelector('.walk .crumbs').textContent.includes('of 8')");
    browser.until("document.querySelector('.walk').textContent.includes('finest')");
    browser.key("Escape");
    browser.until("document.querySelector('.walk') === null");

    // The map: dots under the pointer have a name and a picture; it can be zoomed by keys.
    browser.hover(".mapbox canvas");
    browser.until("document.querySelector('.mapbox canvas').width > 300");
    let spot = browser.value(
        "(() => { const b = document.querySelector('.mapbox canvas').getBoundingClientRect(); \
         const s = content.runs[0].analysis.images_shown; const side = Math.min(b.width, b.height) * 0.94; \
         return [b.left + b.width / 2 + (s.x[0] / 65534 - 0.5) * side, b.top + b.height / 2 + (s.y[0] / 65534 - 0.5) * side]; })()",
    );
    let (x, y) = (spot[0].as_f64().unwrap(), spot[1].as_f64().unwrap());
    browser.move_to(x + 1.0, y);
    browser.until(
        "!tip.hidden && tip.querySelector('.tile') !== null && tip.textContent.includes('.png')",
    );
    browser.picture("small-map", false);
    let pixels = "(() => { const c = document.querySelector('.mapbox canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let h = 7; for (let i = 0; i < d.length; i += 4) h = (h * 31 + d[i] + d[i + 1] * 3) | 0; return h; })()";
    let before = browser.number(pixels);
    browser.value("document.querySelector('.mapbox canvas').focus()");
    browser.key("+");
    browser.until(&format!("{pixels} !== {before}"));
    let before = browser.number(pixels);
    browser.key("p");
    browser.until(&format!("{pixels} !== {before}"));

    // Dark, by the system's wish and by hand.
    browser.prefer("dark");
    browser.open(&format!("file://{}", page.display()));
    browser.until("document.documentElement.classList.contains('dark')");
    browser.picture("small-dark", true);
    browser.click("#theme");
    browser.until("!document.documentElement.classList.contains('dark')");

    // A phone: nothing is wider than the screen.
    browser.size(360, 740);
    browser.until("document.documentElement.scrollWidth <= 360");
    browser.picture("small-phone", true);

    // What screen readers need: names for everything that can be used, one h1, headings in order.
    let nameless = "[...document.querySelectorAll('button, select, a, canvas, svg[role], [role=img]')]\
        .filter((e) => !(e.getAttribute('aria-label') || e.textContent || e.closest('label')?.textContent).trim()).length";
    assert_eq!(browser.number(nameless), 0.0);
    assert_eq!(browser.number("document.querySelectorAll('h1').length"), 1.0);
    assert!(browser.text(CONTRAST).is_empty(), "too little contrast");
    browser.prefer("light");
    assert_eq!(browser.complaints, [""; 0]);
}

/// Texts whose contrast is below WCAG's 4.5.
const CONTRAST: &str = "(() => { const rgb = (c) => (c.match(/[\\d.]+/g) || []).map(Number);\
    const light = (c) => { const [r, g, b] = rgb(c).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };\
    const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; const p = rgb(c); if (p.length === 3) return c; } return 'rgb(255,255,255)'; };\
    const bad = new Set(); for (const e of document.querySelectorAll('main *')) { if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;\
    if (e.closest('svg') || !e.offsetParent) continue; const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];\
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); if (ratio < 4.5) bad.add(e.className + ' ' + e.textContent.slice(0, 20) + ' ' + ratio.toFixed(1)); }\
    return [...bad].join('; '); })()";

#[test]
fn hostile_names_and_labels_are_shown_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let mut list = String::new();
    for (number, label) in HOSTILE.iter().enumerate() {
        for index in 0..12 {
            let name = format!("{index}\"><svg onload=window.hacked=5>{number}.png");
            picture(number as u32, index).save(folder.path().join(&name)).unwrap();
            list += &format!("{name}\t{label}\n");
        }
    }
    let data = folder.path().join("list';alert(6).txt");
    std::fs::write(&data, list).unwrap();
    let run = folder.path().join("run<b onclick=alert(7)>");
    succeed(tiny_pretrain(data.to_str().unwrap(), &run, &["--epochs", "2"]));
    let page = report(&run, &[]);
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&format!(
        "file://{}",
        page.display().to_string().replace('<', "%3C").replace('>', "%3E")
    ));
    browser.until("document.querySelector('#labels tbody') !== null");
    for label in HOSTILE {
        let found =
            format!("document.querySelector('#labels tbody').textContent.includes({label:?})");
        browser.until(&found);
    }
    browser.hover("#images .tile");
    browser.until("tip.textContent.includes('<svg onload=window.hacked=5>')");
    browser.until("document.querySelector('h1').textContent === 'run<b onclick=alert(7)>'");
    for (selector, count) in
        [("#main img", 0.0), ("main b[onclick]", 0.0), ("main svg[onload]", 0.0)]
    {
        assert_eq!(
            browser.number(&format!("document.querySelectorAll('{selector}').length")),
            count
        );
    }
    assert_eq!(browser.value("window.hacked ?? null"), serde_json::Value::Null);
    assert_eq!(browser.complaints, [""; 0]);
}
