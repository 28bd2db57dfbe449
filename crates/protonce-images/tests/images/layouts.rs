//! Folders and lists as users have them: with what does not belong there.

use std::fs;
use std::path::Path;

use protonce_images::data::{DataError, Dataset};
use tempfile::TempDir;

/// Files by name; the contents are the name, since nothing here decodes.
fn folder(names: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    folder
}

fn open(path: impl AsRef<Path>) -> Dataset {
    Dataset::open(path.as_ref().to_str().unwrap()).unwrap()
}

fn names(dataset: &Dataset) -> Vec<&str> {
    (0..dataset.len()).map(|index| dataset.name(index)).collect()
}

/// Names with the texts of their labels.
fn labelled(dataset: &Dataset) -> Vec<(&str, &str)> {
    let class = |index| dataset.label(index).map_or("", |label| &dataset.classes()[label]);
    (0..dataset.len()).map(|index| (dataset.name(index), class(index))).collect()
}

/// Runs `work` as a user whom permissions bind, which root is not.
#[cfg(target_os = "linux")]
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let bound = scope.spawn(|| {
            // SAFETY: the call takes a number and changes the permissions of this thread alone, which
            // ends with `work`.
            unsafe { libc::setfsuid(65534) };
            work()
        });
        bound.join().unwrap()
    })
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_may_not_be_read_is_named_and_skipped() {
    use std::os::unix::fs::PermissionsExt;
    let allow = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let files = ["cat/1.jpg", "dog/2.jpg", "cat/private/3.jpg", "locked/deep/4.jpg"];
    for (closed, mode, left) in [
        ("cat/private", 0o000, &["cat/1.jpg", "dog/2.jpg", "locked/deep/4.jpg"][..]),
        ("locked", 0o000, &["cat/1.jpg", "cat/private/3.jpg", "dog/2.jpg"]),
        // It may be listed, but what is in it may not be entered.
        ("locked", 0o444, &["cat/1.jpg", "cat/private/3.jpg", "dog/2.jpg"]),
    ] {
        let files = folder(&files);
        let path = files.path().join(closed);
        allow(files.path(), 0o755);
        allow(&path, mode);
        let dataset = as_nobody(|| open(files.path()));
        allow(&path, 0o755);
        assert_eq!(names(&dataset), left);
        let [remark] = dataset.remarks() else { panic!("{:?}", dataset.remarks()) };
        assert!(remark.contains(path.to_str().unwrap()) && remark.contains("skipped"), "{remark}");
    }
    // The folder that was asked for is no subfolder.
    let files = folder(&files);
    allow(files.path(), 0o000);
    let error = as_nobody(|| Dataset::open(files.path().to_str().unwrap()).unwrap_err());
    allow(files.path(), 0o755);
    assert!(
        matches!(&error, DataError::Unreadable { path, .. } if path == files.path()),
        "{error}"
    );
}

#[test]
fn images_without_a_label_are_left_out_where_labels_are_needed() {
    let cases: [(&[&str], usize, &str); 3] = [
        (&["cat/1.jpg", "dog/2.jpg", "logo.png"], 2, "1 of 3 images have no label"),
        (&["a.jpg", "b.jpg", "cat/1.jpg"], 1, "2 of 3 images have no label"),
        (&["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "zoo.gif"], 3, "such as \"zoo.gif\""),
    ];
    for (files, labelled, remark) in cases {
        let files = folder(files);
        let path = files.path().to_str().unwrap();
        assert_eq!(open(path).len(), fs_count(files.path()));
        assert!(open(path).remarks().is_empty());
        let dataset = Dataset::open_labelled(path).unwrap();
        assert_eq!(dataset.labels().map(|labels| labels.len()), Some(labelled));
        let [said] = dataset.remarks() else { panic!("{:?}", dataset.remarks()) };
        assert!(said.contains(remark), "{said}");
    }
    // Lists, too; and where nothing has a label, nothing is left out.
    let files = folder(&["1.jpg", "2.jpg"]);
    let list = files.path().join("list.txt");
    for (text, count) in
        [("1.jpg\ta\n2.jpg\n", 1), ("1.jpg\n2.jpg\n", 2), ("1.jpg\ta\n2.jpg\tb", 2)]
    {
        fs::write(&list, text).unwrap();
        assert_eq!(Dataset::open_labelled(list.to_str().unwrap()).unwrap().len(), count);
    }
}

fn fs_count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { fs_count(&path) } else { 1 }).sum()
}

#[test]
fn what_is_passed_over_is_counted_and_named() {
    for (files, remark) in [
        (&["a.jpg", "b.png"][..], None),
        (&["a.jpg", "IMG_1.HEIC"], Some("1 other file, \"IMG_1.HEIC\", is passed over")),
        (
            &["a.jpg", "cat/a.txt", "cat/z.avif", "notes.md"],
            Some("3 other files, such as \"cat/z.avif\", are passed over"),
        ),
        (&["a.jpg", "b.txt", "a.txt", ".hidden"], Some("2 other files, such as \"a.txt\"")),
    ] {
        let files = folder(files);
        let dataset = open(files.path());
        match remark {
            None => assert!(dataset.remarks().is_empty()),
            Some(remark) => {
                assert!(dataset.remarks()[0].contains(remark), "{:?}", dataset.remarks())
            }
        }
    }
    // An error that says what is there instead names images that cannot be read.
    let files = folder(&["IMG_1.HEIC", "IMG_2.HEIC", "a.txt"]);
    let error = Dataset::open(files.path().to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("3 other files such as \"IMG_1.HEIC\""), "{error}");
}

#[test]
fn bookkeeping_is_no_class() {
    let outside = tempfile::tempdir().unwrap();
    for odd in [
        "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/cat/1.jpg",
        "cat/.ipynb_checkpoints/1-checkpoint.jpg",
        "cat/@eaDir/1.jpg",
        "$RECYCLE.BIN/1.jpg",
        "lost+found/1.jpg",
        ".Trash-1000/files/1.jpg",
        "System Volume Information/1.jpg",
    ] {
        let all = ["cat/1.jpg", "dog/2.jpg", odd];
        let files = folder(&all);
        let path = outside.path().join("images.tar");
        let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
        for name in all {
            tar.append_path_with_name(files.path().join(name), name).unwrap();
        }
        tar.into_inner().unwrap();
        for dataset in [open(files.path()), open(&path)] {
            assert_eq!(names(&dataset), ["cat/1.jpg", "dog/2.jpg"]);
            assert_eq!(dataset.classes(), ["cat", "dog"]);
        }
    }
}

#[cfg(unix)]
#[test]
fn pipes_and_sockets_are_not_opened() {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let files = folder(&["a.jpg"]);
    let at = |name: &str| files.path().join(name);
    let pipe = at("x.jpg");
    let name = CString::new(pipe.as_os_str().as_bytes()).unwrap();
    // SAFETY: the name ends with a zero and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let _socket = std::os::unix::net::UnixListener::bind(at("y.jpg")).unwrap();
    std::os::unix::fs::symlink(&pipe, at("z.jpg")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", at("zero.jpg")).unwrap();
    let dataset = open(files.path());
    assert_eq!(names(&dataset), ["a.jpg"]);
    assert!(dataset.remarks()[0].contains("4 other files, such as \"x.jpg\""));

    // A list names its files itself; these are then errors when they are read.
    fs::write(at("list.txt"), "a.jpg\nx.jpg\ny.jpg\nz.jpg\nzero.jpg\n").unwrap();
    let dataset = open(at("list.txt"));
    for index in 1..5 {
        let error = dataset.read(index, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("not a regular file") && error.contains(dataset.name(index)));
    }
    for argument in [&pipe, Path::new("/dev/zero")] {
        let error = Dataset::open(argument.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("a pipe or a device"), "{error}");
    }
}

#[test]
fn lists_from_elsewhere_are_read() {
    let odd = ["a b.jpg", "c, d.jpg", "e \"f\".jpg", "x/g.jpg", "h;i.png"];
    let files = folder(&odd);
    let list = files.path().join("list.csv");
    let cases: &[(&str, &[(&str, &str)])] = &[
        // Names alone.
        ("a b.jpg\nc, d.jpg\n", &[("a b.jpg", ""), ("c, d.jpg", "")]),
        ("a b.jpg  \r\nx/g.jpg \r\n", &[("a b.jpg", ""), ("x/g.jpg", "")]),
        ("\"a b.jpg\"\n'x/g.jpg'\n", &[("a b.jpg", ""), ("x/g.jpg", "")]),
        ("filename\na b.jpg\nx/g.jpg\n", &[("a b.jpg", ""), ("x/g.jpg", "")]),
        // Tabs.
        ("a b.jpg \tcat \nc, d.jpg\tbig dog\n", &[("a b.jpg", "cat"), ("c, d.jpg", "big dog")]),
        (
            "\"a b.jpg\"\t\"cat\"\n\"e \"\"f\"\".jpg\"\tdog\n",
            &[("a b.jpg", "cat"), ("e \"f\".jpg", "dog")],
        ),
        ("e \"f\".jpg\tdog\nh;i.png\n", &[("e \"f\".jpg", "dog"), ("h;i.png", "")]),
        ("label\tpath\ncat\ta b.jpg\ndog\tx/g.jpg\n", &[("a b.jpg", "cat"), ("x/g.jpg", "dog")]),
        // CSV.
        ("a b.jpg,cat\nx/g.jpg,dog\n", &[("a b.jpg", "cat"), ("x/g.jpg", "dog")]),
        ("path,label\na b.jpg,cat\n\"c, d.jpg\",dog\n", &[("a b.jpg", "cat"), ("c, d.jpg", "dog")]),
        (
            "id,width,file_name,class\n0,640,a b.jpg,cat\n1,480,\"e \"\"f\"\".jpg\",dog\n",
            &[("a b.jpg", "cat"), ("e \"f\".jpg", "dog")],
        ),
        ("c, d.jpg,cat\na b.jpg,dog\n", &[("a b.jpg", "dog"), ("c, d.jpg", "cat")]),
        (
            "image;species\na b.jpg;cat\n\"h;i.png\";dog\n",
            &[("a b.jpg", "cat"), ("h;i.png", "dog")],
        ),
        // A blank.
        ("a b.jpg 0\nx/g.jpg 12\n", &[("a b.jpg", "0"), ("x/g.jpg", "12")]),
        ("c, d.jpg   7\nx/g.jpg\n", &[("c, d.jpg", "7"), ("x/g.jpg", "")]),
        // Windows.
        ("x\\g.jpg\tcat\r\n", &[("x/g.jpg", "cat")]),
        (".\\x\\g.jpg,cat\r\na b.jpg,dog\r\n", &[("a b.jpg", "dog"), ("x/g.jpg", "cat")]),
    ];
    for (text, expected) in cases {
        for mark in ["", "\u{feff}"] {
            fs::write(&list, format!("{mark}{text}")).unwrap();
            let dataset = open(&list);
            assert_eq!(labelled(&dataset), *expected, "{text:?}");
            let mut bytes = Vec::new();
            (0..dataset.len()).for_each(|index| dataset.read(index, &mut bytes).unwrap());
        }
    }
}

#[cfg(unix)]
#[test]
fn a_backslash_may_be_part_of_a_name() {
    let files = folder(&["x\\g.jpg", "x\\y\\h.jpg", "i.jpg"]);
    let list = files.path().join("list.txt");
    fs::write(&list, "x\\g.jpg\tcat\nx\\y\\h.jpg\tdog\ni.jpg\tcat\n").unwrap();
    assert_eq!(names(&open(list)), ["i.jpg", "x\\g.jpg", "x\\y\\h.jpg"]);
}

#[test]
fn a_list_of_which_nothing_is_there_says_what_is_expected() {
    let files = folder(&["cat.jpg", "dog.jpg"]);
    let list = files.path().join("list.txt");
    for (text, first) in [
        ("cat.jpg | cat\ndog.jpg | dog\n", "cat.jpg | cat"),
        ("images/cat.jpg\timages/dog.jpg\n", "images/cat.jpg"),
        ("C:\\photos\\cat.jpg\n", "C:/photos/cat.jpg"),
        ("000bec180,boxer\n001513dfc,beagle\n", "000bec180,boxer"),
    ] {
        fs::write(&list, text).unwrap();
        let error = Dataset::open(list.to_str().unwrap()).unwrap_err();
        assert!(
            matches!(&error, DataError::NothingListed { first: f, .. } if f == first),
            "{error}"
        );
        let message = error.to_string();
        for word in [first, "a tab in front of the label", files.path().to_str().unwrap()] {
            assert!(message.contains(word), "{message}");
        }
    }
    // One that is there is enough: the others are told when they are read.
    fs::write(&list, "gone.jpg\ndog.jpg\nlost.jpg\n").unwrap();
    assert_eq!(open(&list).len(), 3);
    // PowerShell's redirection writes UTF-16.
    let wide: Vec<u8> = "\u{feff}cat.jpg\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(&list, wide).unwrap();
    let error = Dataset::open(list.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("UTF-16") && error.contains("save the list as UTF-8"), "{error}");
}
