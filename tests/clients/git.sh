# Clone a repository, commit a file that does not compress, push it, and clone the result.
set -eu
url=$1/repository.git
branch=pushed-$$
git clone -q "$url" first
cd first
head -c 3000000 /dev/urandom >data
git add data
git -c user.name=agent -c user.email=agent@lab.example commit -q -m "Add data"
git push -q origin HEAD:$branch
cd ..
git clone -q --branch $branch "$url" second
cmp first/data second/data
cat second/README
