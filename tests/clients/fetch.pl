# Perl's client of the matrix: `perl fetch.pl URL` prints what came back.
use LWP::UserAgent;

my $agent = LWP::UserAgent->new;
$agent->env_proxy;
my $answer = $agent->get($ARGV[0]);
unless ($answer->is_success) {
    print STDERR $answer->status_line, "\n", $answer->content, "\n";
    exit 1;
}
print $answer->content;
