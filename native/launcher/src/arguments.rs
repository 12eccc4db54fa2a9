//! The command line after the mode: `--name value` pairs, flags, `--`, and what is to be started.

use std::ffi::OsString;
use std::process::Command;

const FLAGS: [&str; 1] = ["--stdin"];

pub struct Arguments {
    options: Vec<(String, OsString)>,
    pub program: OsString,
    arguments: Vec<OsString>,
}

impl Arguments {
    pub fn parse(mut given: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Vec::new();
        while let Some(name) = given.next().filter(|name| name != "--") {
            let name = name.to_string_lossy().into_owned();
            let value = if FLAGS.contains(&name.as_str()) { Some(OsString::new()) } else { given.next() };
            options.push((name.clone(), value.ok_or_else(|| format!("{name} needs a value"))?));
        }
        let program = given.next().ok_or("PROGRAM is missing after --")?;
        Ok(Arguments { options, program, arguments: given.collect() })
    }

    pub fn option(&self, name: &str) -> Option<&OsString> {
        self.options.iter().find(|(given, _)| given == name).map(|(_, value)| value)
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.option(name) else { return Ok(None) };
        let number = value.to_str().and_then(|digits| digits.parse().ok());
        number.map(Some).ok_or_else(|| format!("{name} must be a number of bytes"))
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }
}
